"""The one form every preference row is brought to, whatever layout it came in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Text = str | list[Message]


class FieldError(ValueError):
    """A field of a row is missing or of the wrong type; the caller knows where the row came from."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


@dataclass(frozen=True)
class Drop:
    """A well-formed row that cannot be trained on, and why (a readable kebab-case word)."""

    reason: str


@dataclass(frozen=True)
class PreferenceRow:
    """One pair. Each text is a string or a list of chat messages; all three are of the same kind.

    ``transcript``: the messages were parsed from a ``Human:``/``Assistant:`` transcript and may be written back as one.
    Scores: higher is better.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    transcript: bool = False
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    group: str | None = None


def as_messages(text: Text, role: str) -> list[Message]:
    """``text`` as chat messages; a string becomes one message, without the white space that joined it to its pair."""
    return [{"role": role, "content": text.strip()}] if isinstance(text, str) else text


def prompt_key(prompt: Text) -> str:
    """A stable hash of what was asked: the same for a string and for one user message that holds it."""
    turns = [[message["role"], message["content"].strip()] for message in as_messages(prompt, "user")]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:32]


def is_blank(text: Text) -> bool:
    """Whether a text holds nothing to read or to train on."""
    return not any(message["content"].strip() for message in as_messages(text, ""))
