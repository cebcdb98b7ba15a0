"""Follows a file of JSON lines that another process appends to, or replaces when a run is resumed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


class Tail:
    """The steps of a ``metrics.jsonl``; each :meth:`read` parses only what is new.

    Attributes:
        steps: figures by step, in order; the last line of a step counts.
        changed: when the file last changed, in seconds since the epoch; None before it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[int, dict[str, float]] = {}
        self.changed: float | None = None
        self._file = -1
        self._offset = 0

    def read(self) -> None:
        """Read the lines that are new; start over if the file was replaced. An incomplete last line waits."""
        try:
            with self.path.open("rb") as lines:
                facts = os.fstat(lines.fileno())
                if facts.st_ino != self._file or facts.st_size < self._offset:
                    self.steps, self._file, self._offset = {}, facts.st_ino, 0
                self.changed = facts.st_mtime
                lines.seek(self._offset)
                new = lines.read()
        except OSError:
            return
        whole = new.rfind(b"\n") + 1
        self._offset += whole
        for text in new[:whole].splitlines():
            self._take(text)

    def _take(self, text: bytes) -> None:
        try:
            line: Any = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            return
        self.steps[line["step"]] = {
            name: float(value)
            for name, value in line.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
