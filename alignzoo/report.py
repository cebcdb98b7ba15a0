"""A run's messages and progress. The base class is silent (the Python API); the command line prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Progress:
    """A progress bar: call :meth:`advance` after each unit, with values to show next to it."""

    def advance(self, **figures: str) -> None:
        """One unit done."""


class Reporter:
    """Receives messages in order. All text is for people; programs read the run folder.

    Attributes:
        live: whether bars are drawn in place, so that several can be watched side by side.
    """

    live: bool = False

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something the user may want to change."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Results people read as a table; the first column is text, the others are right-aligned figures."""

    @contextmanager
    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Iterator[Progress]:
        """A bar over ``total`` units, ``done`` of which were finished before."""
        yield Progress()
