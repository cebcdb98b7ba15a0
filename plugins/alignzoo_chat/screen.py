"""What a conversation looks like: responses as they come, beside each other if the terminal is wide enough."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from alignzoo.base.shown import printable
from alignzoo.cli.console import silence_closed_pipe, write
from alignzoo_chat.columns import BETWEEN, Columns

if TYPE_CHECKING:
    from alignzoo.errors import AlignzooError

WIDE = 100
"""Cells of a terminal that shows two responses side by side."""
_BOLD, _DIM, _RED = "1", "2", "31"


class Screen:
    """A terminal; for a file or a pipe, plain text with responses on stdout and messages on stderr.

    Args:
        streamed: responses are shown as they come, otherwise once they are complete.
    """

    def __init__(self, *, streamed: bool = True) -> None:
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = self.terminal and not os.environ.get("NO_COLOR")
        self.streamed = streamed

    @property
    def width(self) -> int:
        """Cells of a line."""
        return shutil.get_terminal_size((80, 24)).columns

    def beside(self, count: int) -> bool:
        """Whether that many responses are shown side by side."""
        return count > 1 and self.terminal and self.width >= WIDE

    def note(self, text: str) -> None:
        """Something worth knowing, apart from the conversation."""
        self._line(sys.stdout if self.terminal else sys.stderr, text, _DIM)

    def error(self, error: AlignzooError) -> None:
        """A mistake in one line, after which the conversation continues."""
        text = " ".join(f"error: {error.message}{f'; {error.hint}' if error.hint else ''}".split())
        self._line(sys.stdout if self.terminal else sys.stderr, text, _RED)

    def show(self, text: str) -> None:
        """What a command was asked to show."""
        self._line(sys.stdout, text)

    def blank(self) -> None:
        """An empty line."""
        self._line(sys.stdout, "")

    def heading(self, labels: Sequence[str]) -> None:
        """The speakers of the columns or of the response that follow."""
        if not self.beside(len(labels)):
            self._line(sys.stdout, labels[0] if self.terminal else f"[{labels[0]}]", _BOLD)
            return
        from rich.cells import set_cell_size

        width = Columns(self._out, len(labels), self.width).width
        cells = [set_cell_size(printable(label), width) for label in labels]
        self._line(sys.stdout, BETWEEN.join(cells).rstrip(), _BOLD)

    def responses(self, streams: Sequence[Iterator[str]], stop: Callable[[], bool]) -> list[str]:
        """Shows responses while they come, taking a piece of each in turn.

        Args:
            stop: asked between pieces; the rest of the responses is then not generated.

        Returns:
            Their texts.
        """
        texts = ["" for _ in streams]
        columns = Columns(self._out, len(streams), self.width) if self.terminal else None
        for at, piece in _in_turn(streams):
            texts[at] += piece or ""
            if self.streamed:
                self._piece(columns, at, piece)
            if stop():
                break
        if not self.streamed:
            for at, text in enumerate(texts):
                self._piece(columns, at, text)
        if columns is not None:
            columns.close()
        else:
            self._out("\n")
        return texts

    def _piece(self, columns: Columns | None, at: int, piece: str | None) -> None:
        if columns is None:
            self._out(printable(piece or ""))
        elif piece is None:
            columns.end(at)
        else:
            columns.add(at, printable(piece))

    def _line(self, stream: IO[str], text: str, style: str = "") -> None:
        if style and self.colours:
            self._out(f"\x1b[{style}m{printable(text)}\x1b[0m\n")
        else:
            write(stream, text)

    def _out(self, text: str) -> None:
        """Write to stdout what is printable already; a closed pipe is not an error."""
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(text)
        silence_closed_pipe(sys.stdout)


def _in_turn(streams: Sequence[Iterator[str]]) -> Iterator[tuple[int, str | None]]:
    """A piece of each stream in turn, with its index; None at the end of each."""
    going = dict(enumerate(streams))
    while going:
        for at, stream in list(going.items()):
            piece = next(stream, None)
            if piece is None:
                del going[at]
            yield at, piece
