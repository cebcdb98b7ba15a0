"""What layouts of every shape ask of a row before they give it."""

from __future__ import annotations

from typing import TypeVar

from alignzoo.data.rows import Drop, Message, SourceRow, canonical

Given = TypeVar("Given", bound=SourceRow)


def checked(row: Given) -> Given | Drop:
    """The row, unless a text is empty or two responses are the same."""
    return canonical(row).unusable() or row


def reply_fault(reply: list[Message], name: str) -> Drop | None:
    """Why chat messages are not one reply by the assistant, if so.

    Args:
        name: what the reason calls the reply where it is empty.
    """
    if not reply:
        return Drop(f"empty-{name}")
    if len(reply) > 1:
        # Training on a reply of several turns would train on the user's turns in between.
        return Drop("several-turns-in-reply")
    return Drop("reply-not-by-assistant") if reply[0]["role"] != "assistant" else None
