"""``alignzoo ls``: installed methods and extensions, their contract results on this machine, and broken plugins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_sections, print_table
from alignzoo.cli.describe import (
    contract_dict,
    contract_text,
    experimental_text,
    is_verified,
    method_dict,
    needs_of,
    verified_text,
)
from alignzoo.cli.named import Entry
from alignzoo.cli.search import OTHER, Filters, family_of, filters, says
from alignzoo.contract.card import EXTENSION_KINDS, Card, Composition, ExtensionKind
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.loss import READS
from alignzoo.contract.needs import PROBLEMS
from alignzoo.errors import UsageError
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

VERIFIED, EXPERIMENTAL = "✓", "⚗"


@cli_command("ls")
@click.argument("words", nargs=-1, metavar="[KIND] [WORD...]")
@click.option("--needs", multiple=True, metavar="NEED", help="only methods that need this, such as scores (repeatable)")
@click.option("--no-reference", is_flag=True, help="only methods that need no reference model")
@click.option("--reads", type=click.Choice(list(READS)), help="only losses of these, and wrappers around them")
@click.option("--unpaired", is_flag=True, help="only losses that need no pairs, and wrappers around them")
@click.option("--for", "problem", metavar="PROBLEM", help=f"only methods against it: {', '.join(PROBLEMS)}")
@click.option("--family", metavar="FAMILY", help="only methods of a family, such as squared")
@click.option("--verified", is_flag=True, help="only methods verified against an independent source")
@click.option("--experimental/--no-experimental", default=None, help="only experimental methods, or only the others")
@click.option("--wide", is_flag=True, help="full summaries, needs, verification sources and contract results")
@json_option
def command(words: tuple[str, ...], wide: bool, as_json: bool, **asked: Any) -> None:
    """List the installed methods by kind and family, or those of one KIND, with all of some WORDs.

    KIND may also be a kind of plugin extension. A ✓ marks methods verified against an independent source; `alignzoo
    info NAME` says which; ⚗ marks experimental ones. With --wide, the column `contract` shows when a method passed
    `alignzoo check` on this machine. Words are looked for in names, summaries, papers, families and problems:
    `alignzoo ls length bias`.
    """
    kind = _kind(words[0]) if words else None
    words = words[1:] if kind else words
    alone = kind in EXTENSION_KINDS and kind not in KINDS
    everything = [] if alone else list(registry().entries(kind if kind in KINDS else None))
    families = [family for family in dict.fromkeys(family_of(entry) for entry in in_order(everything)) if family]
    sought = filters(words, families=families, **asked)
    entries = sought.matching(everything)
    extensions = [row for one in EXTENSION_KINDS if kind in (None, one) for row in _extensions(one)]
    extensions = [row for row in extensions if says(f"{row['name']} {row['summary']}", words)]
    if kind is None:
        of_methods = len(sought.tests) > len(words)
        extensions = [row for row in extensions if row["distribution"] != OWN_DISTRIBUTION and not of_methods]
    if sought.tests and not entries and not extensions:
        raise UsageError(f"nothing matches {' '.join(sought.tests)}", hint=_hint(sought, words, kind, everything))
    if as_json:
        print_json(_facts(entries, extensions))
        return
    if entries:
        (_show_wide if wide else _show_methods)(entries)
    if extensions or kind in EXTENSION_KINDS:
        if entries:
            print_lines("")
        names = ("kind", "name", "summary", "from")
        rows = [[row[name] for name in names] for row in extensions]
        print_table(names, rows, shorten=None if wide else "summary")
    _show_faults()


def _kind(word: str) -> str | None:
    """The kind that a word names, in the singular or in the plural of its heading; None if it names none."""
    plurals = {kind.title.casefold(): name for name, kind in KINDS.items()}
    return word if word in (*KINDS, *EXTENSION_KINDS) else plurals.get(word.casefold())


def _hint(sought: Filters, words: Sequence[str], kind: str | None, entries: Sequence[Entry]) -> str:
    """What would match instead."""
    known = [*KINDS, *EXTENSION_KINDS, *(method.name for _, method in entries)]
    meant = suggest(words[0], known) if len(sought.tests) == 1 and words else None
    return meant or sought.less_strictly(entries) or f"`alignzoo ls{f' {kind}' if kind else ''}` lists all of them"


def _counts(entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """By kind: all methods, verified ones, experimental ones."""
    counts = {kind: {"all": 0, "verified": 0, "experimental": 0} for kind in KINDS}
    for plugin, method in entries:
        count = counts[method.kind]
        count["all"] += 1
        count["verified"] += is_verified(plugin, method)
        count["experimental"] += bool(experimental_text(plugin, method))
    return counts


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """By kind; families in the order in which plugins declare them, methods without one last; then by name."""
    declared = [(plugin, method) for plugin in registry().plugins for method in plugin.methods]
    families = list(dict.fromkeys(family_of(entry) for entry in declared if family_of(entry)))
    place = {family: i for i, family in enumerate([*families, ""])}
    kinds = list(KINDS)
    return sorted(
        entries,
        key=lambda entry: (
            kinds.index(entry[1].kind),
            place[family_of(entry)],
            bool(experimental_text(*entry)),
            entry[1].name,
        ),
    )


def _facts(entries: list[tuple[Plugin, Card | Composition]], extensions: list[dict[str, str]]) -> dict[str, Any]:
    known = registry()
    return {
        "counts": _counts(entries),
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
    files = {"recipe": known.recipes, "suite": known.suites}
    if kind in files:
        rows = [(plugin, name, str(path)) for plugin, name, path in files[kind]()]
    else:
        rows = [(plugin, card.name, card.summary) for plugin, card in known.extensions(kind)]
    return [
        {"kind": kind, "name": name, "summary": summary, "from": plugin.label, "distribution": plugin.distribution}
        for plugin, name, summary in rows
    ]


def _show_methods(entries: Sequence[Entry]) -> None:
    """One line per method under headings of kind and family; experimental ones under one of their own."""
    foreign = any(plugin.distribution != OWN_DISTRIBUTION for plugin, _ in entries)
    sections: dict[tuple[str, str], list[list[str]]] = {}
    counts = _counts(entries)
    in_families = {method.kind for plugin, method in entries if family_of((plugin, method))}
    for entry in in_order(entries):
        plugin, method = entry
        family = family_of(entry) or (OTHER if method.kind in in_families else "")
        unconfirmed = experimental_text(plugin, method)
        heading = ", ".join(filter(None, [family, "experimental" if unconfirmed else ""]))
        mark = EXPERIMENTAL if unconfirmed else VERIFIED if is_verified(plugin, method) else ""
        year = "" if method.paper is None else str(method.paper.year or "")
        also = f" (= {method.flags()})" if isinstance(method, Composition) else ""
        row = [method.name, mark, year, method.summary, also, *([plugin.label] if foreign else [])]
        sections.setdefault((_title(method.kind, counts[method.kind]), heading), []).append(row)
    print_sections(sections)


def _title(kind: str, counts: dict[str, int]) -> str:
    """``Losses (--loss): 59, 52 verified ✓, 6 experimental ⚗``."""
    every = counts["verified"] == counts["all"]
    marks = [f"{'all' if every else counts['verified']} verified {VERIFIED}"] if counts["verified"] else []
    marks += [f"{counts['experimental']} experimental {EXPERIMENTAL}"] if counts["experimental"] else []
    return f"{KINDS[kind].title} (--{kind}): {', '.join([str(counts['all']), *marks])}"


def _show_wide(entries: Sequence[Entry]) -> None:
    """One line per method with all facts, as a table."""
    columns = ["kind", "name", "year", "family", "summary", "needs", "verified against", "contract"]
    if any(plugin.distribution != OWN_DISTRIBUTION for plugin, _ in entries):
        columns.append("from")
    facts = [_facts_of(plugin, method) for plugin, method in in_order(entries)]
    print_table(columns, [[row[name] for name in columns] for row in facts])


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
    also = f" (= {method.flags()})" if isinstance(method, Composition) else ""
    marked = " (experimental)" if experimental_text(plugin, method) else ""
    return {
        "kind": method.kind,
        "name": method.name,
        "year": "-" if method.paper is None else str(method.paper.year or "-"),
        "family": family_of((plugin, method)) or "-",
        "summary": f"{method.summary}{also}{marked}",
        "needs": ", ".join(needs_of(plugin, method)) or "-",
        "verified against": verified_text(plugin, method) or "-",
        "contract": contract_text(plugin, method),
        "from": plugin.label,
    }
