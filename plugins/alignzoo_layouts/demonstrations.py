"""Layouts of demonstrations, as in TRL's SFT: a prompt and one response to imitate, or a whole conversation."""

from __future__ import annotations

from alignzoo.data import fields
from alignzoo.data.extras import extras
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.rows import DemonstrationRow, Drop, Message
from alignzoo_layouts.checks import checked, reply_fault

_PREFERENCE = frozenset({"label", "chosen", "rejected", "responses", "response_0", "response_1"})
"""Columns of preference data: such rows are never demonstrations, whatever else they have."""


def _fits(row: Row, **kinds: type) -> bool:
    """Whether the row has fields of these types and no preference."""
    return _PREFERENCE.isdisjoint(row) and all(isinstance(row.get(name), kind) for name, kind in kinds.items())


def _text(row: Row) -> DemonstrationRow | Drop:
    prompt, completion = fields.text(row, "prompt"), fields.text(row, "completion")
    return checked(DemonstrationRow(prompt, completion, **extras(row, "demonstrations")))


def _conversational(row: Row) -> DemonstrationRow | Drop:
    return _reply(row, fields.messages(row, "prompt"), fields.messages(row, "completion"))


def _messages(row: Row) -> DemonstrationRow | Drop:
    turns = fields.messages(row, "messages")
    return _reply(row, turns[:-1], turns[-1:])


def _reply(row: Row, prompt: list[Message], reply: list[Message]) -> DemonstrationRow | Drop:
    optional = extras(row, "demonstrations")
    return reply_fault(reply, "response") or checked(DemonstrationRow(prompt, reply, **optional))


PROMPT_COMPLETION = Layout(
    "prompt-completion",
    "prompt, completion: text; no label",
    lambda row: _fits(row, prompt=str, completion=str),
    _text,
    shape="demonstrations",
)

PROMPT_COMPLETION_CONVERSATIONAL = Layout(
    "prompt-completion-conversational",
    "prompt, completion: chat messages; no label",
    lambda row: _fits(row, prompt=list, completion=list),
    _conversational,
    shape="demonstrations",
)

MESSAGES = Layout(
    "messages",
    "messages: chat messages, the last one by the assistant; no label",
    lambda row: _fits(row, messages=list),
    _messages,
    shape="demonstrations",
)
