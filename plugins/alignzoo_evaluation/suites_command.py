"""``alignzoo suites``: the suites of prompts, their facts, and where their data is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import WIDE, json_option, with_shared_options, write_commands
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.evaluate.suites.places import place_of
from alignzoo.evaluate.suites.suite import Suite, data_folders, find_suite, suite_names
from alignzoo.plugin.plugin import OWN_DISTRIBUTION
from alignzoo.plugin.registry import registry

EXAMPLES = 3
"""Prompts that ``show`` prints."""
_LONGEST = 400
"""Characters of an example."""
data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="folder that holds the data's files [default: $ALIGNZOO_DATA_DIR]",
)


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """``suites NAME`` is ``suites show NAME``."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if name not in suite_names() and not name.endswith((".yaml", ".yml")) and ":" not in name:
            hint = suggest(name, [*self.commands, *suite_names()])
            raise UsageError(
                f"'suites {name}' is neither a command nor a suite", hint=hint or "`alignzoo suites` lists them"
            )
        return "show", show, args

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_commands(formatter, self.commands.values())


@click.group("suites", cls=_Group, context_settings=WIDE, invoke_without_command=True)
@data_dir_option
@json_option
@click.pass_context
def command(ctx: click.Context, data_dir: Path | None, as_json: bool) -> None:
    """List the suites of prompts, show one, or print the path of its lm-eval task file.

    Without a command, lists them; NAME alone shows that suite.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_suites, data_dir=data_dir, as_json=as_json)
    elif data_dir is not None or as_json:
        raise UsageError("--data-dir and --json go behind the command", hint="alignzoo suites show NAME --json")


@cli_command("list")
@data_dir_option
@json_option
def list_suites(data_dir: Path | None = None, as_json: bool = False) -> None:
    """List names, what they measure, sizes, licences, and whether the data is here."""
    folders = data_folders(data_dir)
    suites = [(plugin.distribution, path) for plugin, _, path in registry().suites()]
    found = [(home, _read(f"{home}:{path.stem}")) for home, path in suites]
    if as_json:
        print_json({"suites": [_facts(suite, home, folders) for home, suite in found if isinstance(suite, Suite)]})
        return
    foreign = any(home != OWN_DISTRIBUTION for home, _ in found)
    rows = []
    for (home, suite), (_, path) in zip(found, suites, strict=True):
        if isinstance(suite, Suite):
            cells = [suite.name, _measures(suite), _count(suite), suite.licence, suite.judge, _here(suite, folders)]
        else:
            cells = [path.stem, "not a valid suite", "", "", str(suite.message), ""]
        rows.append([*cells, *([home] if foreign else [])])
    columns = ["name", "measures", "prompts", "licence", "judge of its paper", "data", *(["from"] if foreign else [])]
    print_table(columns, rows, shorten="judge of its paper")


@cli_command("show")
@click.argument("name")
@data_dir_option
@json_option
def show(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Print all facts of the suite NAME, and three of its prompts if the data is here."""
    suite, folders = find_suite(name), data_folders(data_dir)
    here = place_of(suite.facts, folders)
    loaded = suite.load(data_dir) if here is not None else None
    if as_json:
        facts = _facts(suite, None, folders)
        if loaded is not None:
            facts["found"] = {"prompts": len(loaded.prompts), "origin": loaded.origin, "notes": list(loaded.notes)}
            facts["examples"] = [_example(prompt.messages) for prompt in loaded.prompts[:EXAMPLES]]
        print_json(facts)
        return
    print_lines(f"{suite.name}: {suite.title}", "")
    for label, text in _described(suite):
        print_lines(f"  {label:<12} {text}")
    if loaded is None:
        print_lines("", _absent(suite))
        return
    print_lines(
        "", f"{len(loaded.prompts):,} prompts from {loaded.origin}", *(f"  {note}" for note in loaded.notes), ""
    )
    for prompt in loaded.prompts[:EXAMPLES]:
        text = _example(prompt.messages)
        print_lines(f"  {prompt.id}: {text[:_LONGEST]}{'…' if len(text) > _LONGEST else ''}")


@cli_command("path")
@click.argument("name", required=False)
def path(name: str | None) -> None:
    """Print the folder of alignzoo's task files for ``lm_eval --include_path``; with NAME, that suite's file."""
    print_lines(str(find_suite(name).path if name else find_suite("xstest").path.parent))


def _read(name: str) -> Suite | AlignzooError:
    """The suite, or what is wrong with its file: one bad plugin does not hide the others."""
    try:
        return find_suite(name)
    except AlignzooError as error:
        return error


def _measures(suite: Suite) -> str:
    return suite.measures.replace("_", " ").replace("over refusal", "over-refusal")


def _count(suite: Suite) -> str:
    return "?" if suite.counts is None else f"{suite.counts:,}"


def _here(suite: Suite, folders: Sequence[Path]) -> str:
    """Whether the data is here, in a word or two."""
    place = place_of(suite.facts, folders)
    if place is not None:
        return place.kind
    return "gated" if suite.facts.gated else "hub" if suite.hub else "to fetch"


def _facts(suite: Suite, distribution: str | None, folders: Sequence[Path]) -> dict[str, Any]:
    place = place_of(suite.facts, folders)
    facts: dict[str, Any] = {
        "name": suite.name,
        **suite.facts.model_dump(mode="json", include=set(_FACTS)),
        "hub": suite.hub,
        "files": [pattern for source in suite.facts.sources for pattern in source.files],
        "max_new_tokens": suite.max_new_tokens,
        "path": str(suite.path),
        "data": None if place is None else {"kind": place.kind, "origin": place.origin},
    }
    return facts if distribution is None else {**facts, "distribution": distribution}


_FACTS = (
    *("title", "measures", "prompts", "licence", "gated", "paper", "judge", "default_judge", "fetch", "save_as"),
    *("notes", "unconfirmed"),
)


def _described(suite: Suite) -> list[tuple[str, str]]:
    paper = suite.paper
    lines = [
        ("measures", f"{_measures(suite)}: {_MEANING[suite.measures]}"),
        ("prompts", "not known" if suite.counts is None else f"{suite.counts:,}"),
        ("licence", suite.licence),
        ("paper", f"{paper.byline()} {paper.year or ''}: {paper.title}, {paper.link}" if paper else ""),
        ("judge", suite.judge and f"{suite.judge} (of its paper)"),
        ("default", suite.default_judge and f"--judge {suite.default_judge}"),
        ("responses", f"at most {suite.max_new_tokens} new tokens"),
        ("task file", str(suite.path)),
        *(("note", " ".join(note.split())) for note in suite.facts.notes),
        *(("unconfirmed", text) for text in suite.facts.unconfirmed),
    ]
    return [(label, text) for label, text in lines if text]


_MEANING = {
    "attack_success": "the share of harmful requests that are answered",
    "over_refusal": "the share of harmless requests that are refused",
}


def _absent(suite: Suite) -> str:
    from alignzoo.evaluate.suites.readers import missing

    return str(missing(suite.name, suite.facts))


def _example(messages: Sequence[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


for _command in (list_suites, show, path):
    command.add_command(_command)
with_shared_options(command)
