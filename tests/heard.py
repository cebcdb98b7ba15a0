"""A reporter that remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alignzoo.report import Progress, Reporter


class Heard(Reporter):
    """What was said: notes, warnings, both in their order (``said``), and tables by their titles."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.said: list[str] = []
        self.tables: dict[str, list[Sequence[str]]] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.said.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables[title] = list(rows)

    @contextmanager
    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Iterator[Progress]:
        yield Progress()
