"""A conversation as a file: JSON or Markdown, by its suffix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.disk import stating
from alignzoo.base.files import local_path, write_text
from alignzoo.errors import UsageError
from alignzoo_chat.conversation import Conversation

SUFFIXES = (".json", ".md")


@dataclass(frozen=True)
class Part:
    """One model's conversation, with the model's label, its name and how it is prompted."""

    label: str
    model: str
    conversation: Conversation

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON-able data."""
        return {
            "label": self.label,
            "model": self.model,
            "prompting": self.conversation.prompting.described,
            "messages": self.conversation.record(),
        }

    def markdown(self) -> str:
        """The part as Markdown, under the model's name."""
        names = {"system": "System", "user": "User", "assistant": "Assistant"}
        lines = [f"# {self.label}", "", f"Model: `{self.model}`", ""]
        for message in self.conversation.record():
            incomplete = next((f" ({how})" for how in ("stopped", "cut") if message.get(how)), "")
            lines += [f"**{names[message['role']]}**{incomplete}", "", message["content"], ""]
        return "\n".join(lines)


def transcript_path(name: str) -> Path:
    """The file to save to.

    Raises:
        UsageError: its suffix is neither of :data:`SUFFIXES`.
    """
    path = local_path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{name}: a transcript is saved as {' or '.join(SUFFIXES)}", hint="name the file accordingly")
    return path


def save_transcript(path: Path, parts: Sequence[Part]) -> None:
    """Write the transcript, atomically.

    Raises:
        UsageError: there is no such folder, or it is a folder.
        AlignzooError: it cannot be written.
    """
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"{path}: {problem}", hint="name a file in a folder that exists")
    if path.suffix.lower() == ".json":
        text = json.dumps({"conversations": [part.to_dict() for part in parts]}, indent=2, ensure_ascii=False) + "\n"
    else:
        text = "\n".join(part.markdown() for part in parts)
    with stating(path, "save it elsewhere"):
        write_text(path, text)
