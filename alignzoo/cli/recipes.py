"""``alignzoo recipes``: the runs that come with alignzoo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click
import yaml

from alignzoo.cli.command import WIDE, debug_option, json_option, nearest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.errors import UsageError
from alignzoo.plugin.recipe import find_recipe, shipped_recipes


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            known = list(self.commands)
            raise UsageError(f"unknown command 'recipes {args[0]}'", hint=nearest(args[0], known, ", ".join(known)))
        return super().resolve_command(ctx, args)


@click.group("recipes", cls=_Group, context_settings=WIDE, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show and copy the shipped recipes."""
    if ctx.invoked_subcommand is None:
        print_lines(ctx.get_help())


@cli_command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """Names and what they do."""
    recipes = [{"name": name, "description": _description(path)} for name, path in shipped_recipes().items()]
    if as_json:
        print_json({"recipes": recipes})
        return
    print_table(["name", "description"], [[recipe["name"], recipe["description"]] for recipe in recipes])


@cli_command("show")
@click.argument("name")
def show(name: str) -> None:
    """Print the YAML of the recipe NAME."""
    print_lines(find_recipe(name).read_text(encoding="utf-8").rstrip("\n"))


@cli_command("copy")
@click.argument("name")
@click.argument("dest", required=False, type=click.Path(path_type=Path))
def copy(name: str, dest: Path | None) -> None:
    """Copy the recipe NAME to DEST, a file or a folder (default: NAME.yaml here), to edit it."""
    source = find_recipe(name)
    target = dest or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(f"{target} exists already", hint="name another DEST; nothing is overwritten")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}", hint="name another DEST") from error
    print_lines(str(target))


def _description(path: Path) -> str:
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(content.get("description", "-"))


for _command in (list_recipes, show, copy):
    command.add_command(_command)
command.params.append(debug_option())
