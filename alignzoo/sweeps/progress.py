"""What a sweep's user sees while it runs, read from its folder: the same whoever works on it, and where."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from alignzoo.records.run import METRICS_FILE
from alignzoo.records.sweep import Cell, SweepRecord
from alignzoo.report import Progress, Reporter

_TAIL = 8192
"""Bytes in which the last line of metrics is looked for."""


class SweepProgress:
    """A bar over all runs and, on a terminal, one for each run at work; elsewhere a line for each that ends.

    Use as a context; :meth:`update` looks at the folder.
    """

    def __init__(self, sweep: SweepRecord, reporter: Reporter) -> None:
        self._sweep, self._reporter = sweep, reporter
        self._open = {cell.name: cell for cell in sweep.cells if sweep.status(cell) not in ("finished", "failed")}
        self._at_work: dict[str, _Bar] = {}
        self._steps = _steps_of(sweep)
        self._stack = ExitStack()
        self._all: Progress | None = None

    def __enter__(self) -> SweepProgress:
        total = len(self._sweep.cells)
        bar = self._reporter.progress(total, "runs", unit="run", done=total - len(self._open))
        self._all = self._stack.enter_context(bar)
        return self

    def __exit__(self, *_error: object) -> None:
        for bar in self._at_work.values():
            bar.close()
        self._stack.close()

    def update(self) -> None:
        """Show what has changed."""
        for name, cell in list(self._open.items()):
            status = self._sweep.status(cell)
            if status == "running" and self._reporter.live:
                if name not in self._at_work:
                    self._at_work[name] = _Bar(self._sweep, cell, self._steps, self._reporter)
                self._at_work[name].update()
                continue
            if name in self._at_work:
                self._at_work.pop(name).close()
            if status in ("finished", "failed"):
                del self._open[name]
                self._tell(cell, failed=status == "failed")

    def _tell(self, cell: Cell, *, failed: bool) -> None:
        failure = self._sweep.failure(cell) if failed else None
        if failure is not None:
            self._reporter.warn(f"{cell.label} seed {cell.seed} failed: {failure.error}")
        elif not self._reporter.live:
            self._reporter.note(f"{cell.label} seed {cell.seed}: finished")
        assert self._all is not None
        self._all.advance()


class _Bar:
    """The steps of one run."""

    def __init__(self, sweep: SweepRecord, cell: Cell, steps: int, reporter: Reporter) -> None:
        self._metrics = sweep.run_folder(cell) / METRICS_FILE
        self._step = last_step(self._metrics)
        self._stack = ExitStack()
        title = f"{cell.label} seed {cell.seed}"
        self._bar = self._stack.enter_context(
            reporter.progress(max(steps, self._step), title, unit="step", done=self._step)
        )

    def update(self) -> None:
        step = last_step(self._metrics)
        for _ in range(step - self._step):
            self._bar.advance()
        self._step = max(step, self._step)

    def close(self) -> None:
        self._stack.close()


def last_step(metrics: Path) -> int:
    """The step of the last whole line of ``metrics.jsonl``; 0 before the first."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def _steps_of(sweep: SweepRecord) -> int:
    """Steps of a run, as far as that is known before one has finished."""
    for _, run in sweep.finished():
        if run.result is not None:
            return run.result.steps
    stated = [values["max-steps"] for values in sweep.recipe.values() if "max-steps" in values]
    return int(stated[-1]) if stated else 0
