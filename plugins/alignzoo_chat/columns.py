"""Text that grows in one or several columns, row by row: what is above the last row never changes."""

from __future__ import annotations

from collections.abc import Callable

BETWEEN = " │ "
_ERASE = "\x1b[K"
"""Erases what an earlier state of the row left behind its end."""
SHORTEST = 20
"""A column is never narrower, in cells."""


class Columns:
    """Texts side by side, each wrapped to its column. A row is final once every column has gone past it or ended.

    Args:
        write: takes terminal output; a row is drawn again by returning to its start.
        count: number of columns.
        width: of the terminal, in cells.
    """

    def __init__(self, write: Callable[[str], None], count: int, width: int) -> None:
        self._write = write
        # The last cell stays free: a terminal wraps there.
        self.width = max(SHORTEST, (width - 1 - len(BETWEEN) * (count - 1)) // count)
        self._lines: list[list[str]] = [[""] for _ in range(count)]
        self._ended = [False] * count
        self._row = 0

    def add(self, column: int, text: str) -> None:
        """Append to a column."""
        lines = self._lines[column]
        first, *others = (lines.pop() + text.replace("\t", "    ")).split("\n")
        for paragraph in (first, *others):
            lines.extend(wrapped(paragraph, self.width))
        self._draw()

    def end(self, column: int) -> None:
        """No more text for a column."""
        self._ended[column] = True
        while len(self._lines[column]) > 1 and not self._lines[column][-1].strip():
            self._lines[column].pop()
        self._draw()

    def close(self) -> None:
        """End all columns, and the last row."""
        for column in range(len(self._ended)):
            self.end(column)
        if self._row < max(map(len, self._lines)):
            self._write("\n")
            self._row += 1

    def _draw(self) -> None:
        last = max(map(len, self._lines))
        while all(
            ended or len(lines) > self._row + 1 for ended, lines in zip(self._ended, self._lines, strict=True)
        ) and (self._row + 1 < last):
            self._write(f"\r{self._text()}\n")
            self._row += 1
        if self._row < last:
            self._write(f"\r{self._text()}")

    def _text(self) -> str:
        from rich.cells import set_cell_size

        cells = [lines[self._row] if self._row < len(lines) else "" for lines in self._lines]
        *left, right = cells
        return BETWEEN.join([*(set_cell_size(cell, self.width) for cell in left), right]).rstrip() + _ERASE


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` cells; broken at spaces where there are any. Indentation is kept."""
    from rich.cells import cell_len

    lines = []
    while cell_len(text) > width:
        size, end = 0, 0
        while end < len(text) and size + cell_len(text[end]) <= width:
            size += cell_len(text[end])
            end += 1
        # A space right behind the line is where it breaks best.
        space = text.rfind(" ", 0, end + 1)
        if space > 0 and text[:space].strip():
            lines.append(text[:space])
            text = text[space + 1 :]
        else:
            lines.append(text[:end])
            text = text[end:]
    return [*lines, text]
