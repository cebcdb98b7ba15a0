"""Layouts of unpaired rows, as in TRL and HALOs: a prompt, one response, and whether it is desirable."""

from __future__ import annotations

from alignzoo.data import fields
from alignzoo.data.extras import extras
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.rows import Drop, UnpairedRow
from alignzoo_layouts.checks import checked, reply_fault

_COMPLETIONS = ("completion", "output")


def _completion(row: Row) -> str:
    """The response column: ``completion`` in TRL's layout, ``output`` in HALOs'."""
    return next((name for name in _COMPLETIONS if name in row), _COMPLETIONS[0])


def _fits(row: Row, kind: type) -> bool:
    texts = (row.get("prompt"), row.get(_completion(row)))
    return all(isinstance(text, kind) for text in texts) and row.get("label") is not None


def _text(row: Row) -> UnpairedRow | Drop:
    prompt, completion = fields.text(row, "prompt"), fields.text(row, _completion(row))
    return checked(UnpairedRow(prompt, completion, fields.desirable(row, "label"), **extras(row, "unpaired")))


def _conversational(row: Row) -> UnpairedRow | Drop:
    prompt, completion = fields.messages(row, "prompt"), fields.messages(row, _completion(row))
    label, optional = fields.desirable(row, "label"), extras(row, "unpaired")
    return reply_fault(completion, "response") or checked(UnpairedRow(prompt, completion, label, **optional))


UNPAIRED = Layout(
    "unpaired",
    "prompt, completion (or output): text; label: true/false, 1/0, 1/-1 or chosen/rejected",
    lambda row: _fits(row, str),
    _text,
    shape="unpaired",
)

UNPAIRED_CONVERSATIONAL = Layout(
    "unpaired-conversational",
    "prompt, completion (or output): chat messages; label: true/false, 1/0, 1/-1 or chosen/rejected",
    lambda row: _fits(row, list),
    _conversational,
    shape="unpaired",
)
