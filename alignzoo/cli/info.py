"""``alignzoo info NAME``: everything a method's card declares."""

from __future__ import annotations

from collections.abc import Sequence

import click

from alignzoo.base.suggest import suggest
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.cli.describe import (
    contract_dict,
    contract_text,
    method_dict,
    needs_of,
    option_facts,
    paper_url,
    parts_of,
)
from alignzoo.contract.card import EXTENSION_KINDS, Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, BrokenPluginError, UsageError
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

Entry = tuple[Plugin, "Card | Composition"]


@cli_command("info")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="show only the method of this kind")
@json_option
def command(name: str, kind: str | None, as_json: bool) -> None:
    """Show formula, paper, options, needs and verification of the method NAME (or distribution:NAME)."""
    entries = _find(name, kind)
    if as_json:
        facts = [
            {**method_dict(plugin, method), "contract": contract_dict(plugin, method)} for plugin, method in entries
        ]
        print_json({"methods": facts})
        return
    for position, (plugin, method) in enumerate(entries):
        if position:
            print_lines("")
        _show(plugin, method)


def _find(name: str, kind: str | None) -> list[Entry]:
    """All methods of that name: several kinds or plugins may have one."""
    distribution, _, bare = name.rpartition(":")
    hits = [
        (plugin, method)
        for plugin, method in registry().entries(kind)
        if bare in (method.name, *method.aliases) and distribution in ("", plugin.distribution)
    ]
    if hits:
        return hits
    for one in (kind,) if kind else KINDS:
        try:
            registry().find(one, name)
        except BrokenPluginError:
            raise
        except AlignzooError:
            continue
    if named := [one for one in EXTENSION_KINDS if any(card.name == bare for _, card in registry().extensions(one))]:
        article = "an" if named[0][0] in "aeiou" else "a"
        shown = ", ".join(f"`alignzoo ls {one}`" for one in named)
        raise UsageError(f"{name!r} is {article} {', '.join(named)}, not a method", hint=f"see {shown}")
    known = {method.name for _, method in registry().entries(kind)}
    what = kind or "method"
    raise UsageError(f"unknown {what} {name!r}", hint=suggest(name, sorted(known)) or "`alignzoo ls` lists the methods")


def _show(plugin: Plugin, method: Card | Composition) -> None:
    print_lines(f"{method.kind} {method.name}: {method.summary}")
    facts = _composition_facts(plugin, method) if isinstance(method, Composition) else _card_facts(plugin, method)
    if method.paper is not None:
        facts.append(("paper", str(method.paper)))
        facts.append(("", paper_url(method.paper) or ""))
    if method.aliases:
        facts.append(("also called", ", ".join(method.aliases)))
    target = "" if isinstance(method, Composition) else f", {method.target}"
    facts.append(("from", f"{plugin.label}{target}"))
    if isinstance(method, Card):
        facts += _contract_facts(plugin, method)
    width = max(len(name) for name, _ in facts)
    print_lines(*(f"  {name.ljust(width)}  {value}" for name, value in facts if value))
    _show_options(parts_of(plugin, method))


def _composition_facts(plugin: Plugin, method: Composition) -> list[tuple[str, str]]:
    return [("stands for", method.flags()), ("needs", _needs(plugin, method))]


def _needs(plugin: Plugin, method: Card | Composition) -> str:
    return ", ".join(needs_of(plugin, method)) or "-"


def _card_facts(plugin: Plugin, card: Card) -> list[tuple[str, str]]:
    facts = [("formula", card.formula), ("needs", _needs(plugin, card)), *card.facts()]
    checks = [f"{source.against} ({source.test})" for source in card.verified] or ["nothing yet"]
    return [*facts, *((("verified against" if not i else ""), check) for i, check in enumerate(checks))]


def _contract_facts(plugin: Plugin, card: Card) -> list[tuple[str, str]]:
    """When it was last checked here, and the rules its card declares it breaks."""
    checked = contract_text(plugin, card)
    facts = [("contract", f"not checked here yet: alignzoo check {card.name}" if checked == "-" else checked)]
    broken = (f"{rule}: {reason}" for rule, reason in card.expected_failures.items())
    return [*facts, *((("expected failures" if not i else ""), text) for i, text in enumerate(broken))]


def _show_options(cards: Sequence[Card]) -> None:
    """The options of a method, or of all parts of a composition."""
    rows = [
        [
            f"--{card.kind}.{option.name}",
            option.type,
            option.default_text() or ("required" if option.required else "-"),
            option.bounds_text() or "-",
            option.help,
        ]
        for card in cards
        for option in option_facts(card)
    ]
    if not rows:
        print_lines("  no options")
        return
    print_lines("")
    print_table(["option", "type", "default", "bounds", "help"], rows)
