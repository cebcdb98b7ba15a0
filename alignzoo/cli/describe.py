"""Methods as text and as plain data, for ``ls``, ``info`` and ``compat``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from alignzoo.cli.fields import FieldFacts, field_facts
from alignzoo.contract.card import Card, Composition, Paper
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.needs import PROBLEMS, Problem
from alignzoo.errors import AlignzooError
from alignzoo.plugin.build import default_needs
from alignzoo.plugin.contract_records import read_record
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry


def option_facts(card: Card) -> list[FieldFacts]:
    """The options of a method, in the order of its model."""
    return [field_facts(name, info) for name, info in card.options.model_fields.items()]


def parts_of(plugin: Plugin, method: Card | Composition) -> list[Card]:
    """The method itself, or the parts of a composition that are installed."""
    if isinstance(method, Card):
        return [method]
    parts: list[Card] = []
    for kind, name in ((kind, name) for kind, names in method.parts.items() for name in names):
        with contextlib.suppress(AlignzooError):  # a run with the composition reports what is missing
            part = registry().find(kind, registry().at_home(kind, name, plugin.distribution))
            parts += [part] if isinstance(part, Card) else []
    return parts


def needs_of(plugin: Plugin, method: Card | Composition) -> list[str]:
    """What a method, or all parts of a composition, need with their default options."""
    return sorted({need for part in parts_of(plugin, method) for need in default_needs(part)})


def is_verified(plugin: Plugin, method: Card | Composition) -> bool:
    """Whether a method, and every part of a composition, is verified against something and not experimental."""
    return bool(verified_text(plugin, method)) and not experimental_text(plugin, method)


def verified_text(plugin: Plugin, method: Card | Composition) -> str:
    """What a method, or every part of a composition, is verified against, as a table cell."""
    checked = [[source.against for source in part.verified] for part in parts_of(plugin, method)]
    return ", ".join(dict.fromkeys(against for sources in checked for against in sources)) if all(checked) else ""


def paper_dict(paper: Paper) -> dict[str, Any]:
    """A paper as plain data."""
    return {
        "title": paper.title,
        "authors": list(paper.authors),
        "year": paper.year,
        "venue": paper.venue,
        "arxiv": paper.arxiv,
        "url": paper.link,
    }


def experimental_text(plugin: Plugin, method: Card | Composition) -> str:
    """What has not been confirmed about a method, or about a part of a composition; empty if it is not experimental."""
    texts = [method.experimental, *(part.experimental for part in parts_of(plugin, method))]
    return next((text for text in texts if text), "")


def addresses_of(plugin: Plugin, method: Card | Composition) -> list[Problem]:
    """The problems that the authors of a method, or of a composition or one of its parts, claim to mitigate."""
    claimed = {problem for part in parts_of(plugin, method) for problem in part.addresses} | method.addresses
    return [problem for problem in PROBLEMS if problem in claimed]


def contract_dict(plugin: Plugin, method: Card | Composition) -> dict[str, Any] | None:
    """The last ``alignzoo check`` of a method on this machine, and whether it still applies to the current code."""
    record = read_record(plugin, method) if isinstance(method, Card) else None
    return None if record is None else {"state": record.state(plugin), **record.model_dump()}


def contract_text(plugin: Plugin, method: Card | Composition) -> str:
    """The same as a table cell."""
    facts = contract_dict(plugin, method)
    if facts is None:
        return "-"
    return f"{'changed since' if facts['state'] == 'changed' else facts['state']} {facts['date'][:10]}"


def _facts_of_its_kind(card: Card) -> dict[str, Any]:
    """The facts of a card that are specific to its kind."""
    facts = {name: getattr(card, name) for name in KINDS[card.kind].facts}
    return {name: sorted(fact) if isinstance(fact, frozenset) else fact for name, fact in facts.items()}


def _options(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """The options of some methods, with the flags that set them."""
    return [
        {**option.to_dict(), "flag": f"--{card.kind}.{option.name}"} for card in cards for option in option_facts(card)
    ]


def method_dict(plugin: Plugin, method: Card | Composition) -> dict[str, Any]:
    """A method as plain data; a composition has ``stands_for`` and its parts instead of a card's facts."""
    facts: dict[str, Any] = {
        "kind": method.kind,
        "name": method.name,
        "aliases": list(method.aliases),
        "summary": method.summary,
        "family": method.family,
        "year": None if method.paper is None else method.paper.year,
        "paper": None if method.paper is None else paper_dict(method.paper),
        "addresses": addresses_of(plugin, method),
        "experimental": experimental_text(plugin, method),
        "distribution": plugin.distribution,
        "version": plugin.version,
        "api": method.api,
        "composition": isinstance(method, Composition),
    }
    if isinstance(method, Composition):
        parts = {kind: list(names) for kind, names in method.parts.items()}
        return {
            **facts,
            "stands_for": method.flags(),
            "parts": parts,
            "needs": needs_of(plugin, method),
            "options": _options(parts_of(plugin, method)),
        }
    return {
        **facts,
        "target": method.target,
        "formula": method.formula,
        "needs": needs_of(plugin, method),
        **_facts_of_its_kind(method),
        "options": _options([method]),
        "expected_failures": dict(method.expected_failures),
        "verified": [{"against": source.against, "test": source.test} for source in method.verified],
    }
