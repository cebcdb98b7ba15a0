"""Texts of the data: strings, or chat messages."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
Text = str | list[Message]


def as_messages(text: Text, role: str) -> list[Message]:
    """``text`` as chat messages; a string becomes one message, without the white space that joined it to its prompt."""
    return [{"role": role, "content": text.strip()}] if isinstance(text, str) else text
