"""Checks of a row that layouts of every shape share."""

from __future__ import annotations

from typing import TypeVar

from alignzoo.data.rows import Drop, Message, SourceRow, canonical

Given = TypeVar("Given", bound=SourceRow)


def checked(row: Given) -> Given | Drop:
    """The row, unless a text is empty or two responses are the same."""
    return canonical(row).unusable() or row


def reply_fault(reply: list[Message], name: str) -> Drop | None:
    """Why chat messages are not a single assistant reply, or None.

    Args:
        name: the reply's name in the reason for an empty reply.
    """
    if not reply:
        return Drop(f"empty-{name}")
    if len(reply) > 1:
        # A reply of several turns would train on the user's turns in between.
        return Drop("several-turns-in-reply")
    return Drop("reply-not-by-assistant") if reply[0]["role"] != "assistant" else None
