"""``alignzoo info NAME``: everything a method's card declares, and a drawing of what it does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.combine import example, refused
from alignzoo.cli.command import command as cli_command
from alignzoo.cli.command import json_option
from alignzoo.cli.console import PIPE_WIDTH, print_hanging, print_json, print_lines, print_table
from alignzoo.cli.describe import (
    addresses_of,
    contract_dict,
    contract_text,
    experimental_text,
    method_dict,
    needs_of,
    option_facts,
    parts_of,
)
from alignzoo.cli.named import Entry, find_methods
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.needs import PROBLEMS
from alignzoo.contract.paper import Paper
from alignzoo.errors import UsageError
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.plugin import Plugin

if TYPE_CHECKING:
    from alignzoo.cli.curves import Panel


@cli_command("info")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="show only the method of this kind")
@click.option(
    "--draw/--no-draw",
    default=None,
    help="draw loss and gradient, or a wrapper's weights [default: on a terminal; takes seconds]",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="write that drawing to a .png or .svg")
@json_option
def command(name: str, kind: str | None, draw: bool | None, plot: Path | None, as_json: bool) -> None:
    """Show formula, paper, options, needs and verification of the method NAME, and draw it.

    NAME may be an alias, KIND:NAME or DISTRIBUTION:NAME. Losses are drawn against the margin of a standard pair,
    wrappers against the losses of a step.
    """
    entries = find_methods(name, kind)
    if plot is not None:
        _plot(entries, plot)
    if as_json:
        print_json({"methods": [_as_dict(plugin, method) for plugin, method in entries]})
        return
    drawing = sys.stdout.isatty() if draw is None else draw
    for position, (plugin, method) in enumerate(entries):
        if position:
            print_lines("")
        _show(plugin, method)
        if drawing:
            _draw(method)


def _as_dict(plugin: Plugin, method: Card | Composition) -> dict[str, Any]:
    facts = {**method_dict(plugin, method), "contract": contract_dict(plugin, method), "example": example(method)}
    return facts | ({"not_with": refused(method)} if isinstance(method, Card) else {})


def _panels(method: Card | Composition) -> tuple[Panel, ...]:
    if isinstance(method, Composition):
        return ()
    from alignzoo.cli.curves import panels_of

    return panels_of(method)


def _draw(method: Card | Composition) -> None:
    """The drawing; a plugin's method may fail in it, which is no reason not to show the rest."""
    from alignzoo.cli.drawing import drawn

    try:
        lines = drawn(_panels(method), min(shutil.get_terminal_size((PIPE_WIDTH, 0)).columns, 120))
    except Exception as error:
        lines = [f"not drawn: {describe_error(error)}"]
    if lines:
        print_lines("", *lines)


def _plot(entries: Sequence[Entry], path: Path) -> None:
    """Write the drawing of the one method of that name that has one.

    Raises:
        UsageError: none or several of them have one.
    """
    from alignzoo.cli.drawing import save_plot

    found = [(method, panels) for _, method in entries if (panels := _panels(method))]
    if len(found) != 1:
        named = " or ".join(f"--kind {method.kind}" for method, _ in found)
        raise UsageError(
            f"--plot: {len(found) or 'no'} methods of that name have a drawing",
            hint=f"add {named}" if found else "losses have one, and robust wrappers that depend on the losses alone",
        )
    [(method, panels)] = found
    save_plot(panels, path, f"{method.kind} {method.name}")


def _show(plugin: Plugin, method: Card | Composition) -> None:
    print_lines(f"{method.kind} {method.name}: {method.summary}")
    facts = [("experimental", experimental_text(plugin, method))]
    facts += _composition_facts(plugin, method) if isinstance(method, Composition) else _card_facts(plugin, method)
    facts += _lines("addresses", [f"{problem}: {PROBLEMS[problem]}" for problem in addresses_of(plugin, method)])
    facts += [("family", method.family), *([] if method.paper is None else _paper_facts(method.paper))]
    facts += [("also called", ", ".join(method.aliases)), ("run it", example(method))]
    if isinstance(method, Card):
        facts += _lines("not with", [f"--{kind} {', '.join(names)}" for kind, names in refused(method).items()])
    target = "" if isinstance(method, Composition) else f", {method.target}"
    facts.append(("from", f"{plugin.label}{target}"))
    if isinstance(method, Card):
        facts += _contract_facts(plugin, method)
    width = max(len(name) for name, value in facts if value)
    print_hanging([(f"  {name.ljust(width)}  ", value) for name, value in facts if value])
    _show_options(parts_of(plugin, method))


def _lines(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """A fact of several lines, named in the first."""
    return [(name if i == 0 else "", value) for i, value in enumerate(values)]


def _paper_facts(paper: Paper) -> list[tuple[str, str]]:
    published = [paper.byline(), paper.venue or "", str(paper.year or "") if paper.venue is None else ""]
    return _lines("paper", [str(paper), *filter(None, [", ".join(filter(None, published)), paper.link])])


def _composition_facts(plugin: Plugin, method: Composition) -> list[tuple[str, str]]:
    return [("stands for", method.flags()), ("needs", _needs(plugin, method))]


def _needs(plugin: Plugin, method: Card | Composition) -> str:
    return ", ".join(needs_of(plugin, method)) or "-"


def _card_facts(plugin: Plugin, card: Card) -> list[tuple[str, str]]:
    narrow = f"not with --precision auto: {card.needs_fp32}" if card.needs_fp32 else ""
    facts = [("formula", card.formula), ("needs", _needs(plugin, card)), ("bf16", narrow), *card.facts()]
    checks = [f"{source.against} ({source.test})" for source in card.verified] or ["nothing yet"]
    return [*facts, *_lines("verified against", checks)]


def _contract_facts(plugin: Plugin, card: Card) -> list[tuple[str, str]]:
    """When it was last checked here, and the rules its card declares it breaks."""
    checked = contract_text(plugin, card)
    facts = [("contract", f"not checked here yet: alignzoo check {card.name}" if checked == "-" else checked)]
    return [*facts, *_lines("expected failures", [f"{rule}: {why}" for rule, why in card.expected_failures.items()])]


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
