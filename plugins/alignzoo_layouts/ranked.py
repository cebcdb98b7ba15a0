"""Layouts of ranked rows: a prompt with several responses, best first or sorted by ranks or scores; TPO's triples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.data import fields
from alignzoo.data.extras import extras
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.rows import Drop, FieldError, RankedRow, Text
from alignzoo_layouts.checks import checked, reply_fault


def _fits(row: Row, kind: type) -> bool:
    responses = row.get("responses")
    is_list = isinstance(responses, list) and bool(responses) and all(isinstance(one, kind) for one in responses)
    return is_list and isinstance(row.get("prompt"), kind)


def _text(row: Row) -> RankedRow | Drop:
    prompt, responses = fields.text(row, "prompt"), fields.texts(row, "responses")
    return _ranked(row, prompt, responses)


def _conversational(row: Row) -> RankedRow | Drop:
    prompt, responses = fields.messages(row, "prompt"), fields.conversations(row, "responses")
    faults = [fault for reply in responses if (fault := reply_fault(reply, "response"))]
    return faults[0] if faults else _ranked(row, prompt, responses)


_TRIPLE = ("reference", "chosen", "rejected")
"""TRL's columns for TPO, best first: ``reference`` is the gold response, and no reference model."""


def _is_triple(row: Row, kind: type) -> bool:
    return all(isinstance(row.get(name), kind) for name in ("prompt", *_TRIPLE))


def _triple(row: Row) -> RankedRow | Drop:
    return _ranked(row, fields.text(row, "prompt"), [fields.text(row, name) for name in _TRIPLE])


def _triple_conversational(row: Row) -> RankedRow | Drop:
    responses = [fields.messages(row, name) for name in _TRIPLE]
    faults = [fault for reply in responses if (fault := reply_fault(reply, "response"))]
    return faults[0] if faults else _ranked(row, fields.messages(row, "prompt"), responses)


def _ranked(row: Row, prompt: Text, responses: Sequence[Text]) -> RankedRow | Drop:
    """The responses sorted by ``ranks``, else by ``scores``, else in their own order."""
    optional: dict[str, Any] = extras(row, "ranked")
    ranks = fields.numbers(row, "ranks") if "ranks" in row else None
    for name, values in (("ranks", ranks), ("scores", optional.get("scores")), ("safe", optional.get("safe"))):
        if values is not None and len(values) != len(responses):
            raise FieldError(name, f"has {len(values)} values for {len(responses)} responses")
    if len(responses) < 2:
        return Drop("fewer-than-two-responses")
    if ranks is None and "scores" in optional:
        ranks = [-score for score in optional["scores"]]
    if ranks is not None:
        if len(set(ranks)) < len(ranks):
            return Drop("tied-responses")  # the order in the file would invent a preference
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        responses = [responses[i] for i in order]
        optional |= {name: [optional[name][i] for i in order] for name in ("scores", "safe") if name in optional}
    return checked(RankedRow(prompt, responses, **optional))


RANKED = Layout(
    "ranked",
    "prompt: text; responses: list of texts, best first, or in the order of ranks (lowest is best) or scores",
    lambda row: _fits(row, str),
    _text,
    shape="ranked",
)

RANKED_CONVERSATIONAL = Layout(
    "ranked-conversational",
    "prompt: chat messages; responses: list of lists of chat messages, in order as in ranked",
    lambda row: _fits(row, list),
    _conversational,
    shape="ranked",
)

TRIPLES = Layout(
    "triples",
    "prompt, reference, chosen, rejected: text; reference is the gold response, better than chosen (TRL's TPO)",
    lambda row: _is_triple(row, str),
    _triple,
    shape="ranked",
)

TRIPLES_CONVERSATIONAL = Layout(
    "triples-conversational",
    "prompt, reference, chosen, rejected: chat messages; reference as in triples",
    lambda row: _is_triple(row, list),
    _triple_conversational,
    shape="ranked",
)
