"""``alignzoo ls``: installed methods and extensions, their contract results on this machine, and broken plugins."""

from __future__ import annotations

from typing import Any

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.describe import contract_dict, contract_text, method_dict, needs_of, verified_text
from alignzoo.contract.card import EXTENSION_KINDS, Card, Composition, ExtensionKind
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

VERIFIED = "✓"


@cli_command("ls")
@click.argument("kind", required=False, metavar=f"[{'|'.join([*KINDS, *EXTENSION_KINDS])}]")
@click.option("--wide", is_flag=True, help="full summaries, needs, verification sources and contract results")
@json_option
def command(kind: str | None, wide: bool, as_json: bool) -> None:
    """List the installed methods, or those of one KIND.

    KIND may also be a kind of plugin extension. A ✓ marks methods verified against an independent source; `alignzoo
    info NAME` says which. With --wide, the column `contract` shows when a method passed `alignzoo check` on this
    machine.
    """
    if kind is not None and kind not in (*KINDS, *EXTENSION_KINDS):
        kinds = [*KINDS, *EXTENSION_KINDS]
        raise UsageError(f"unknown kind {kind!r}", hint=suggest(kind, kinds) or f"kinds: {', '.join(kinds)}")
    entries = [] if kind in EXTENSION_KINDS else list(registry().entries(kind if kind in KINDS else None))
    extensions = [row for one in EXTENSION_KINDS if kind in (None, one) for row in _extensions(one)]
    if kind is None:
        extensions = [row for row in extensions if row["distribution"] != OWN_DISTRIBUTION]
    if as_json:
        print_json(_facts(entries, extensions))
        return
    if entries:
        _show_methods(entries, wide)
    if extensions or kind in EXTENSION_KINDS:
        if entries:
            print_lines("")
        names = ("kind", "name", "summary", "from")
        rows = [[row[name] for name in names] for row in extensions]
        print_table(names, rows, shorten=None if wide else "summary")
    _show_faults()


def _facts(entries: list[tuple[Plugin, Card | Composition]], extensions: list[dict[str, str]]) -> dict[str, Any]:
    known = registry()
    return {
        "methods": [
            {**method_dict(plugin, method), "contract": contract_dict(plugin, method)} for plugin, method in entries
        ],
        "extensions": extensions,
        "broken": [plugin.to_dict() for plugin in known.broken],
        "warnings": [
            {"distribution": plugin.distribution, "version": plugin.version, "warning": text}
            for plugin in known.plugins
            for text in plugin.remarks
        ],
        "duplicates": [
            {"kind": kind, "name": name, "distributions": homes} for kind, name, homes in known.duplicates()
        ],
    }


def _extensions(kind: ExtensionKind) -> list[dict[str, str]]:
    """Name, summary and origin of all extensions of one kind."""
    known = registry()
    rows = [(plugin, card.name, card.summary) for plugin, card in known.extensions(kind)] if kind != "recipe" else []
    if kind == "recipe":
        rows = [(plugin, name, str(path)) for plugin, name, path in known.recipes()]
    return [
        {"kind": kind, "name": name, "summary": summary, "from": plugin.label, "distribution": plugin.distribution}
        for plugin, name, summary in rows
    ]


def _show_methods(entries: list[tuple[Plugin, Card | Composition]], wide: bool) -> None:
    """One line per method; with ``wide``, more columns and full summaries."""
    columns = ["kind", "name", *([] if wide else [VERIFIED]), "summary"]
    columns += ["needs", "verified against", "contract"] if wide else []
    if any(plugin.distribution != OWN_DISTRIBUTION for plugin, _ in entries):
        columns.append("from")
    facts = [_facts_of(plugin, method) for plugin, method in entries]
    rows = [[row[name] for name in columns] for row in facts]
    print_table([{VERIFIED: ""}.get(name, name) for name in columns], rows, shorten=None if wide else "summary")


def _show_faults() -> None:
    """Plugins that do not load, warnings for their authors, and names that several plugins provide."""
    known = registry()
    if known.broken:
        print_lines("")
        print_table(
            ["broken plugin", "entry point", "error"],
            [[plugin.label, plugin.entry_point, plugin.error or ""] for plugin in known.broken],
            style="red",
        )
    remarks = [[plugin.label, text] for plugin in known.plugins for text in plugin.remarks]
    remarks += [
        [", ".join(homes), f"both provide {kind} {name!r}; pick one with distribution:{name}"]
        for kind, name, homes in known.duplicates()
    ]
    if remarks:
        print_lines("")
        print_table(["plugin", "warning"], remarks, style="yellow")


def _facts_of(plugin: Plugin, method: Card | Composition) -> dict[str, str]:
    """The cells of a method's row, by column."""
    verified = verified_text(plugin, method)
    also = f" (= {method.flags()})" if isinstance(method, Composition) else ""
    return {
        "kind": method.kind,
        "name": method.name,
        VERIFIED: VERIFIED if verified else "",
        "summary": f"{method.summary}{also}",
        "needs": ", ".join(needs_of(plugin, method)) or "-",
        "verified against": verified or "-",
        "contract": contract_text(plugin, method),
        "from": plugin.label,
    }
