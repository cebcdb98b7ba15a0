"""Terminal output: results on stdout, progress and messages on stderr; rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, TYPE_CHECKING, Any

from alignzoo.base.shown import printable, printable_json

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 100
"""Width of a table with a truncated column when there is no terminal, in characters."""
INDENT = "   "
"""In front of a row under a heading."""
GAP = "  "
"""Space between two columns of a table without rules."""
SHORTEST = 20
"""A column is never truncated below this width."""


def write(stream: IO[str], text: str) -> None:
    """Write a line with control characters escaped; a closed pipe (``| head``) is not an error."""
    try:
        stream.write(printable(text) + "\n")
        stream.flush()
    except BrokenPipeError:
        _to_nowhere(stream)


def silence_closed_pipe(stream: IO[str]) -> None:
    """Flush now, so that Python's own flush at exit cannot fail."""
    try:
        stream.flush()
    except BrokenPipeError:
        _to_nowhere(stream)


def _to_nowhere(stream: IO[str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def results_only() -> Iterator[None]:
    """Inside, prints go to stderr: a method's ``print`` must not end up among the results on stdout."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any) -> None:
    """A value as JSON on stdout."""
    write(sys.stdout, printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    style: str | None = None,
    *,
    shorten: str | None = None,
) -> None:
    """Data as a table on stdout: ``style`` colours it on a terminal; elsewhere columns are aligned and never truncated.

    The column ``shorten`` is truncated with … so that a row fits one terminal line, or :data:`PIPE_WIDTH` characters.
    """
    console = None
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
    if shorten is not None:
        rows = _one_line_each(columns, rows, shorten, PIPE_WIDTH if console is None else console.width)
    if console is not None:
        console.print(rich_table(columns, rows, title, style, figures=False, ruled=shorten is None))
        return
    write(sys.stdout, "\n".join([*([title] if title else []), *plain_table(columns, rows)]))


def print_sections(sections: Mapping[tuple[str, str], Sequence[Sequence[str]]]) -> None:
    """Rows under titles and headings on stdout, one line each, aligned over all sections.

    The cells are a name, a mark, a year, a summary, what may follow it if there is room, and possibly an origin. The
    summary is truncated with … so that a row fits one terminal line, or :data:`PIPE_WIDTH` characters.
    """
    console = None
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
    width = PIPE_WIDTH if console is None else console.width
    rows = [[printable(cell) for cell in row] for section in sections.values() for row in section]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    around = [width for i, width in enumerate(widths) if i not in (3, 4)]
    room = max(SHORTEST, width - len(INDENT) - sum(around) - len(GAP) * len(around) + 1)
    lines, last, every = list[tuple[str, str]](), "", iter(rows)
    for (title, heading), section in sections.items():
        if title != last:
            lines += [("", ""), ("bold", title)] if last else [("bold", title)]
        last = title
        lines += [("cyan", f" {heading}")] if heading else []
        for name, mark, year, summary, also, *origin in (next(every) for _ in section):
            text = summary + also if len(summary + also) <= room else _shortened(summary, room)
            cells = [name.ljust(widths[0]), f"{mark.ljust(widths[1])} {year.ljust(widths[2])}"]
            cells += [text.ljust(room), *origin] if origin else [text]
            lines.append(("", f"{INDENT}{GAP.join(cells)}".rstrip()))
    if console is None:
        write(sys.stdout, "\n".join(text for _, text in lines))
        return
    from rich.text import Text

    for style, text in lines:
        console.print(Text(printable(text), style=style), no_wrap=True, overflow="ellipsis", crop=False)


def _one_line_each(columns: Sequence[str], rows: Sequence[Sequence[str]], shorten: str, width: int) -> list[list[str]]:
    """The rows, with one column truncated so that all fit into ``width``."""
    cut = columns.index(shorten)
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    room = max(SHORTEST, width - (sum(widths) - widths[cut]) - len(GAP) * (len(columns) - 1))
    return [[_shortened(cell, room) if i == cut else cell for i, cell in enumerate(row)] for row in rows]


def _shortened(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    whole_words = text[:room].rpartition(" ")[0].rstrip(" ,;:(")
    return f"{whole_words or text[: room - 1]}…"


def print_lines(*lines: str) -> None:
    """Plain lines on stdout."""
    write(sys.stdout, "\n".join(lines))


def print_hanging(facts: Sequence[tuple[str, str]]) -> None:
    """Lines of a lead and a text on stdout; on a terminal, texts wrap beside their lead."""
    if not sys.stdout.isatty():
        print_lines(*(lead + text for lead, text in facts))
        return
    for lead, text in facts:
        room = max(SHORTEST, shutil.get_terminal_size((PIPE_WIDTH, 0)).columns - len(lead))
        wrapped = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        print_lines(lead + wrapped[0], *(" " * len(lead) + line for line in wrapped[1:]))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool = False) -> list[str]:
    """Aligned columns as lines, two spaces apart; with ``figures`` all but the first are right-aligned.

    If all headers are empty, there is no header line.
    """
    lines = [[printable(cell) for cell in line] for line in ([columns, *rows] if any(columns) else rows)]
    if not lines:
        return []
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]

    def aligned(line: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if figures and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return GAP.join(cells).rstrip()

    return [aligned(line) for line in lines]


def rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None,
    style: str | None,
    *,
    figures: bool,
    ruled: bool = True,
) -> Table:
    """A table for a terminal.

    Args:
        figures: all columns but the first are right-aligned.
        ruled: a line separates the header.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = title and printable(title)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    if not ruled:
        table.box, table.padding = None, (0, len(GAP), 0, 0)
    for i, column in enumerate(columns):
        named = ruled and i == 0 and bool(column)  # what a user copies is not split over lines
        table.add_column(
            printable(column), justify="right" if figures and i else "left", overflow="fold", no_wrap=named
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row), style=style)
    return table
