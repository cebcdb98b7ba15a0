"""A method in words and as plain data: what ``ls``, ``info`` and ``compat`` show."""

from __future__ import annotations

import contextlib
from typing import Any

from alignzoo.cli.fields import FieldFacts, field_facts
from alignzoo.contract.card import Card, Composition, Paper
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
    named: list[tuple[str, str | None]] = [("loss", method.loss), *(("robust", name) for name in method.robust)]
    parts = []
    for kind, name in [*named, ("geometry", method.geometry)]:
        with contextlib.suppress(AlignzooError):  # a run that asks for the composition says what is missing
            if name is not None:
                part = registry().find(kind, registry().at_home(kind, name, plugin.distribution))
                parts += [part] if isinstance(part, Card) else []
    return parts


def needs_of(plugin: Plugin, method: Card | Composition) -> list[str]:
    """What a method, or all parts of a composition, need with their default options."""
    return sorted({need for part in parts_of(plugin, method) for need in default_needs(part)})


def verified_text(plugin: Plugin, method: Card | Composition) -> str:
    """What a method, or all parts of a composition, were checked against, for a table cell."""
    checked = [[source.against for source in part.verified] for part in parts_of(plugin, method)]
    return ", ".join(dict.fromkeys(against for sources in checked for against in sources)) if all(checked) else ""


def paper_url(paper: Paper) -> str | None:
    """Where the paper is read; None without an arXiv id."""
    return f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else None


def contract_dict(plugin: Plugin, method: Card | Composition) -> dict[str, Any] | None:
    """The last ``alignzoo check`` of a method on this machine, with what it says about the method as it is now."""
    record = read_record(plugin, method) if isinstance(method, Card) else None
    return None if record is None else {"state": record.state(plugin), **record.model_dump()}


def contract_text(plugin: Plugin, method: Card | Composition) -> str:
    """The same for a table cell."""
    facts = contract_dict(plugin, method)
    if facts is None:
        return "-"
    return f"{'changed since' if facts['state'] == 'changed' else facts['state']} {facts['date'][:10]}"


def sharded_text(card: Card) -> str:
    """Whether a method runs on sharded weights, for a line of facts; empty for what no weights are given to."""
    if card.kind != "geometry":
        return ""
    return "yes, under FSDP2" if card.sharded else "no: launch with plain data parallelism"


def _of_a_step(card: Card) -> dict[str, Any]:
    """What a card says of an optimizer step."""
    names = ("batch_coupled", "companion", "averages", "passes", "sharded", "swaps", "relabels")
    return {name: getattr(card, name) for name in names}


def method_dict(plugin: Plugin, method: Card | Composition) -> dict[str, Any]:
    """A method as plain data; a composition has ``stands_for`` and its parts instead of the facts of a card."""
    facts: dict[str, Any] = {
        "kind": method.kind,
        "name": method.name,
        "aliases": list(method.aliases),
        "summary": method.summary,
        "paper": None
        if method.paper is None
        else {"title": method.paper.title, "arxiv": method.paper.arxiv, "url": paper_url(method.paper)},
        "distribution": plugin.distribution,
        "version": plugin.version,
        "api": method.api,
        "composition": isinstance(method, Composition),
    }
    if isinstance(method, Composition):
        parts = {"loss": method.loss, "robust": list(method.robust), "geometry": method.geometry}
        return {**facts, "stands_for": method.flags(), "parts": parts, "needs": needs_of(plugin, method)}
    return {
        **facts,
        "target": method.target,
        "formula": method.formula,
        "needs": needs_of(plugin, method),
        **(_of_a_step(method) if method.kind != "reward" else {}),
        "options": [{**option.to_dict(), "flag": f"--{method.kind}.{option.name}"} for option in option_facts(method)],
        "expected_failures": dict(method.expected_failures),
        "verified": [{"against": source.against, "test": source.test} for source in method.verified],
    }
