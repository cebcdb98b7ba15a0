"""Layouts of pairs: a prompt with a chosen and a rejected response."""

from __future__ import annotations

from typing import Any

from alignzoo.data import fields
from alignzoo.data.extras import extras
from alignzoo.data.fields import Row
from alignzoo.data.layout import Layout
from alignzoo.data.rows import Drop, Message, PreferenceRow, is_blank
from alignzoo.data.transcripts import is_transcript, parse_transcript
from alignzoo_layouts.checks import checked, reply_fault


def _explicit(row: Row) -> PreferenceRow | Drop:
    prompt, chosen, rejected = (fields.text(row, side) for side in ("prompt", "chosen", "rejected"))
    return checked(PreferenceRow(prompt, chosen, rejected, **extras(row)))


def _implicit(row: Row) -> PreferenceRow | Drop:
    chosen, rejected = fields.text(row, "chosen"), fields.text(row, "rejected")
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        if is_blank(text):
            return Drop(f"empty-{side}")
    if chosen == rejected:
        return Drop("identical-sides")
    shared = next((at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    cut = min(len(chosen), len(rejected)) if shared is None else shared
    # A split inside a word would be arbitrary: the reply starts at the white space before the first differing word.
    while cut > 0 and not chosen[cut - 1].isspace():
        cut -= 1
    prompt = chosen[:cut].rstrip()
    if not prompt:
        return Drop("no-common-prompt")
    return checked(PreferenceRow(prompt, chosen[len(prompt) :], rejected[len(prompt) :], **extras(row)))


def _same_conversation(
    chosen: list[Message], rejected: list[Message], extra: dict[str, Any], *, transcript: bool = False
) -> PreferenceRow | Drop:
    """Two whole conversations: the last turn is the reply, everything before it is the prompt and must be identical."""
    for side, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not conversation:
            return Drop(f"empty-{side}")
    if chosen[:-1] != rejected[:-1] or not chosen[:-1]:
        return Drop("no-common-prompt")
    return _replies(chosen[:-1], chosen[-1:], rejected[-1:], extra, transcript=transcript)


def _replies(
    prompt: list[Message],
    chosen: list[Message],
    rejected: list[Message],
    extra: dict[str, Any],
    transcript: bool = False,
) -> PreferenceRow | Drop:
    for side, reply in (("chosen", chosen), ("rejected", rejected)):
        if fault := reply_fault(reply, side):
            return fault
    return checked(PreferenceRow(prompt, chosen, rejected, transcript=transcript, **extra))


def _conversational(row: Row) -> PreferenceRow | Drop:
    prompt, chosen, rejected = (fields.messages(row, side) for side in ("prompt", "chosen", "rejected"))
    return _replies(prompt, chosen, rejected, extras(row))


def _implicit_conversational(row: Row) -> PreferenceRow | Drop:
    return _same_conversation(fields.messages(row, "chosen"), fields.messages(row, "rejected"), extras(row))


def _hh_rlhf(row: Row) -> PreferenceRow | Drop:
    chosen, rejected = (parse_transcript(fields.text(row, side)) for side in ("chosen", "rejected"))
    if not chosen or not rejected:
        return Drop("not-a-transcript")
    return _same_conversation(chosen, rejected, extras(row), transcript=True)


def _ultrafeedback(row: Row) -> PreferenceRow | Drop:
    prompt = fields.text(row, "prompt")
    chosen, rejected = fields.messages(row, "chosen"), fields.messages(row, "rejected")
    if len(chosen) == len(rejected) == 1:
        return _replies([{"role": "user", "content": prompt}], chosen, rejected, extras(row))
    return _same_conversation(chosen, rejected, extras(row))


def _typed(row: Row, chosen: type, prompt: type | None) -> bool:
    """Whether both sides have one type and the prompt the other (None: no prompt column)."""
    if not isinstance(row.get("chosen"), chosen) or not isinstance(row.get("rejected"), chosen):
        return False
    return "prompt" not in row if prompt is None else isinstance(row.get("prompt"), prompt)


def _sides_are_transcripts(row: Row) -> bool:
    return is_transcript(row["chosen"]) and is_transcript(row["rejected"])


EXPLICIT = Layout("explicit", "prompt, chosen, rejected: text", lambda row: _typed(row, str, str), _explicit)

CONVERSATIONAL = Layout(
    "conversational",
    "prompt, chosen, rejected: chat messages",
    lambda row: _typed(row, list, list),
    _conversational,
)

IMPLICIT = Layout(
    "implicit",
    "chosen, rejected: text that begins with the same prompt",
    lambda row: _typed(row, str, None) and not _sides_are_transcripts(row),
    _implicit,
)

IMPLICIT_CONVERSATIONAL = Layout(
    "implicit-conversational",
    "chosen, rejected: chat messages that begin with the same turns",
    lambda row: _typed(row, list, None),
    _implicit_conversational,
)

HH_RLHF = Layout(
    "hh-rlhf",
    r"chosen, rejected: transcripts '\n\nHuman: …\n\nAssistant: …'",
    lambda row: _typed(row, str, None) and _sides_are_transcripts(row),
    _hh_rlhf,
)

ULTRAFEEDBACK = Layout(
    "ultrafeedback",
    "prompt: text; chosen, rejected: chat messages that begin with it; score_chosen, score_rejected: numbers",
    lambda row: _typed(row, list, str),
    _ultrafeedback,
)
