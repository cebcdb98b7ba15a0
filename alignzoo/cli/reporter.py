"""What a run says on stderr: rich on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from alignzoo.base.shown import printable
from alignzoo.cli.console import plain_table, rich_table, write
from alignzoo.report import Progress, Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.table import Table


PLAIN_SECONDS = 10.0
"""Seconds between progress lines when there is no terminal."""


class ConsoleReporter(Reporter):
    """Reports a run's progress on stderr."""

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._console: Console | None = None
        self._bars: RichProgress | None = None
        if self._stream.isatty():
            from rich.console import Console

            self._console = Console(file=self._stream)
            self.live = True

    def note(self, text: str) -> None:
        self._say(text)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}", style="yellow")

    def _say(self, text: str, style: str | None = None) -> None:
        if self._console is None:
            write(self._stream, text)
        else:
            self._console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self._console is None:
            write(self._stream, "\n".join([title, *(f"  {line}" for line in plain_table(columns, rows, figures=True))]))
        else:
            self._console.print(rich_table(columns, rows, title, None, figures=True))

    @contextmanager
    def progress(self, total: int, description: str, *, unit: str = "it", done: int = 0) -> Iterator[Progress]:
        if self._console is None:
            yield _PlainProgress(self._stream, self._clock, total, description, unit, done)
            return
        bars = self._bars
        if bars is None:
            with _rich_progress(self._console) as self._bars:
                try:
                    yield _RichBar(self._bars, self._clock, total, description, unit, done)
                finally:
                    self._bars = None
            return
        # A terminal can have only one live display, so an evaluation during training is another bar in it.
        bar = _RichBar(bars, self._clock, total, description, unit, done)
        try:
            yield bar
        finally:
            bars.remove_task(bar.task)


def speed(count: int, seconds: float, unit: str) -> str:
    """Throughput: units per second, or seconds per unit when that is easier to read."""
    if count == 0 or seconds <= 0:
        return f"- {unit}/s"
    rate = count / seconds
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"


def duration(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class _PlainProgress(Progress):
    """Prints a line for the first unit, the last, and occasionally in between."""

    def __init__(
        self, stream: IO[str], clock: Callable[[], float], total: int, description: str, unit: str, done: int
    ) -> None:
        self._stream, self._clock = stream, clock
        self._total, self._description, self._unit = total, description, unit
        self._start = self._done = done
        self._began = clock()
        self._last_line = float("-inf")

    def advance(self, **figures: str) -> None:
        self._done += 1
        now = self._clock()
        if now - self._last_line < PLAIN_SECONDS and self._done < self._total:
            return
        self._last_line = now
        finished, seconds = self._done - self._start, now - self._began
        left = seconds / finished * max(0, self._total - self._done)
        percent = 100 * self._done // self._total if self._total else 100
        words = [
            f"{self._description} {self._done}/{self._total} ({percent}%)",
            speed(finished, seconds, self._unit),
            f"{duration(left)} left" if self._done < self._total else f"took {duration(seconds)}",
            *(f"{name} {value}" for name, value in figures.items()),
        ]
        write(self._stream, ", ".join(words))


def _rich_progress(console: Console) -> RichProgress:
    from rich.measure import Measurement
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    def text(field: str) -> TextColumn:
        return TextColumn(field, markup=False)

    bar, speed, figures = BarColumn(bar_width=24), text("{task.fields[speed]}"), text("{task.fields[figures]}")
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    columns = [
        text("{task.description}"),
        bar,
        MofNCompleteColumn(),
        speed,
        left,
        text("{task.fields[first]}"),
        figures,
    ]

    class Fitting(RichProgress):
        """Drops columns on a narrow terminal, but never the step, the time left or the first figure."""

        def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
            listed = list(tasks)
            for absent in ((), (bar,), (bar, figures), (bar, figures, speed)):
                self.columns = tuple(column for column in columns if column not in absent)
                table = super().make_tasks_table(listed)
                if Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width:
                    break
            return table

    return Fitting(*columns, console=console)


class _RichBar(Progress):
    def __init__(
        self, bars: RichProgress, clock: Callable[[], float], total: int, description: str, unit: str, done: int
    ) -> None:
        self._bars, self._clock, self._unit = bars, clock, unit
        self._began, self._count = clock(), 0
        self.task = bars.add_task(printable(description), total=total, completed=done, speed="", first="", figures="")

    def advance(self, **figures: str) -> None:
        self._count += 1
        shown = [printable(f"{name} {value}") for name, value in figures.items()]
        self._bars.update(
            self.task,
            advance=1,
            speed=speed(self._count, self._clock() - self._began, self._unit),
            first="".join(shown[:1]),
            figures="  ".join(shown[1:]),
        )
