"""``alignzoo ls``: which methods are installed, and which plugins do not load."""

from __future__ import annotations

import click

from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option, nearest
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.describe import OWN_DISTRIBUTION, method_dict, needs_text, verified_text
from alignzoo.errors import UsageError
from alignzoo.plugin.card import KINDS, Card, Composition, Kind
from alignzoo.plugin.registry import Plugin, registry


@cli_command("ls")
@click.argument("kind", required=False)
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """List the methods, of one KIND (loss, robust, geometry) or all of them."""
    chosen = _kind(kind)
    entries = list(registry().entries(chosen))
    broken = registry().broken
    if as_json:
        print_json(
            {
                "methods": [method_dict(plugin, method) for plugin, method in entries],
                "broken": [plugin.to_dict() for plugin in broken],
            }
        )
        return
    foreign = any(plugin.distribution != OWN_DISTRIBUTION for plugin, _ in entries)
    columns = ["kind", "name", "summary", "needs", "verified against", *(["from"] if foreign else [])]
    print_table(columns, [_row(plugin, method)[: len(columns)] for plugin, method in entries])
    if broken:
        print_lines("")
        print_table(
            ["broken plugin", "entry point", "error"],
            [[f"{plugin.distribution} {plugin.version}", plugin.entry_point, plugin.error or ""] for plugin in broken],
            style="red",
        )


def _kind(name: str | None) -> Kind | None:
    if name is None or name in KINDS:
        return name
    raise UsageError(f"unknown kind {name!r}", hint=nearest(name, KINDS, f"kinds: {', '.join(KINDS)}"))


def _row(plugin: Plugin, method: Card | Composition) -> list[str]:
    if isinstance(method, Composition):
        facts = [f"{method.summary} (= {method.flags()})", "-", "-"]
    else:
        facts = [method.summary, needs_text(method), verified_text(method)]
    return [method.kind, method.name, *facts, f"{plugin.distribution} {plugin.version}"]
