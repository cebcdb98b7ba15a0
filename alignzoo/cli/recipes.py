"""``alignzoo recipes``: the recipes that ship with alignzoo and installed plugins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.suggest import suggest
from alignzoo.cli.command import WIDE, json_option, with_shared_options, write_commands
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import find_recipe, recipe_names
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """``recipes NAME`` is ``recipes show NAME``."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if registry().find_recipe(name) is None:
            hint = suggest(name, [*self.commands, *recipe_names()])
            if hint is not None:
                raise UsageError(f"'recipes {name}' is neither a command nor a recipe", hint=hint)
        return "show", show, args

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_commands(formatter, self.commands.values())


@click.group("recipes", cls=_Group, context_settings=WIDE, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show or copy installed recipes. Without a command, lists them; NAME alone shows that recipe."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_recipes)


@cli_command("list")
@json_option
def list_recipes(as_json: bool = False) -> None:
    """List names and descriptions."""
    recipes = [
        {"name": name, "description": _description(path), "distribution": plugin.distribution}
        for plugin, name, path in registry().recipes()
    ]
    if as_json:
        print_json({"recipes": recipes})
        return
    foreign = any(recipe["distribution"] != OWN_DISTRIBUTION for recipe in recipes)
    columns = ["name", "description", *(["distribution"] if foreign else [])]
    print_table(
        [{"distribution": "from"}.get(name, name) for name in columns],
        [[recipe[name] for name in columns] for recipe in recipes],
    )


@cli_command("show")
@click.argument("name")
def show(name: str) -> None:
    """Print the YAML of the recipe NAME."""
    path = find_recipe(name)
    try:
        print_lines(path.read_text(encoding="utf-8").rstrip("\n"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="a recipe is a YAML file") from error


@cli_command("copy")
@click.argument("name")
@click.argument("dest", required=False, type=click.Path(path_type=Path))
def copy(name: str, dest: Path | None) -> None:
    """Copy the recipe NAME to DEST, a file or folder (default: ./NAME.yaml), for editing."""
    source = find_recipe(name)
    target = dest or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(f"{target} already exists", hint="choose another DEST; nothing is overwritten")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}", hint="choose another DEST") from error
    print_lines(str(target))


def _description(path: Path) -> str:
    """A recipe's description; a plugin's may be invalid, which using it reports."""
    try:
        content: Any = read_yaml(path)
        return str(content.get("description", "-"))
    except (YAMLFault, AttributeError):
        return "not a valid recipe"


for _command in (list_recipes, show, copy):
    command.add_command(_command)
with_shared_options(command)
