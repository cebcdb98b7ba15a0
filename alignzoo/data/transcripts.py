"""HH-RLHF transcripts: ``\\n\\nHuman: …\\n\\nAssistant: …`` to chat messages and back."""

from __future__ import annotations

import re

from alignzoo.data.rows import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


def is_transcript(text: str) -> bool:
    """Whether ``text`` starts with a human turn and has a reply."""
    return text.startswith("\n\nHuman:") and "\n\nAssistant:" in text


def parse_transcript(text: str) -> list[Message]:
    """The turns in order, contents stripped; an empty list if the text is not a transcript from its first character.

    Consecutive turns of one speaker stay separate messages: such rows exist in the published data.
    """
    lead, *parts = _TURN.split(text)
    if lead.strip():
        return []
    return [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def write_transcript(messages: list[Message]) -> str:
    """The transcript of ``messages`` (roles user and assistant)."""
    return "".join(f"\n\n{_SPEAKERS[message['role']]}: {message['content']}" for message in messages)
