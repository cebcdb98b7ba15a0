"""What is known of a run or a sweep at one moment, from its folder alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.lock import is_locked
from alignzoo.errors import AlignzooError
from alignzoo.plan.started import PLAN_FILE
from alignzoo.records.run import METRICS_FILE, RunRecord, read_run
from alignzoo.records.sweep import SWEEP_FILE, Cell, Failure, Status, SweepRecord, read_sweep
from alignzoo_watch.tail import Tail

RECENT = 20
"""Steps over which throughput and the time of a step are averaged."""
MOST_POINTS = 2000
"""Of a curve; a longer run's curves have every n-th step, and all evaluations."""
Point = tuple[int, float]


@dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes:
        status: ``waiting`` before its folder has a plan, ``stopped`` if it can be resumed.
        sentence: the methods, as the words of a command line; empty while waiting.
        step, steps: done, and of the whole run; None if not known yet.
        tokens_per_second: over the last steps; None before the first.
        seconds_left: None if unknown or not running.
        quiet: seconds since the last step was recorded.
        curves: points by figure.
        after: the figures after training; empty before.
    """

    folder: str
    status: Status
    sentence: str
    step: int
    steps: int | None
    tokens_per_second: float | None
    seconds_per_step: float | None
    seconds_left: float | None
    quiet: float | None
    curves: Mapping[str, list[Point]]
    after: Mapping[str, float]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status == "finished"

    @property
    def latest(self) -> dict[str, float]:
        """The last value of every figure."""
        return {name: points[-1][1] for name, points in self.curves.items()}

    def to_dict(self) -> dict[str, Any]:
        facts = asdict(self) | {"latest": self.latest}
        return facts | {"curves": {name: [list(point) for point in points] for name, points in self.curves.items()}}


class RunWatch:
    """Watches a run folder, which may not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tail = Tail(folder / METRICS_FILE)
        self._record: RunRecord | None = None

    def state(self) -> RunState:
        """Its state now.

        Raises:
            AlignzooError: its plan or result is damaged.
        """
        if self._record is None and (self.folder / PLAN_FILE).is_file():
            self._record = read_run(self.folder)
        # A fresh record: what it reads is kept for good, and this run may still grow.
        record = None if self._record is None else RunRecord(self.folder, self._record.plan)
        self._tail.read()
        lines = self._tail.steps
        step = max(lines, default=0)
        recent = [lines[number] for number in sorted(lines)[-RECENT:]]
        seconds = sum(line.get("step_seconds", 0.0) for line in recent)
        each = seconds / len(recent) if seconds else None
        status, steps = self._status(record), _steps(record)
        left = each * max(0, steps - step) if status == "running" and each is not None and steps is not None else None
        return RunState(
            folder=str(self.folder),
            status=status,
            sentence=record.sentence if record else "",
            step=step,
            steps=steps,
            tokens_per_second=sum(line.get("tokens", 0.0) for line in recent) / seconds if seconds else None,
            seconds_per_step=each,
            seconds_left=left,
            quiet=None if self._tail.changed is None else max(0.0, time.time() - self._tail.changed),
            curves=_curves(lines),
            after=dict(record.result.after) if record is not None and record.result is not None else {},
        )

    def _status(self, record: RunRecord | None) -> Status:
        if record is not None and record.finished:
            return "finished"
        if self.folder.is_dir() and is_locked(self.folder):
            return "running"
        return "stopped" if record is not None else "waiting"


def _steps(record: RunRecord | None) -> int | None:
    """Optimizer steps of the whole run: of its result, of its data, or of its plan."""
    if record is None:
        return None
    if record.result is not None:
        return record.result.steps
    try:
        stated = record.data.get("training", {}).get("steps")
    except AlignzooError:  # being written, or damaged: the run itself will say so
        stated = None
    if isinstance(stated, int):
        return stated
    most = record.values.get("max-steps")
    return most if isinstance(most, int) and record.values.get("epochs") is None else None


def _curves(lines: Mapping[int, Mapping[str, float]]) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    steps = sorted(lines)
    nth = -(-len(steps) // MOST_POINTS)
    shown = [step for i, step in enumerate(reversed(steps)) if i % nth == 0 or any(map(_of_evaluation, lines[step]))]
    for step in reversed(shown):
        for name, value in lines[step].items():
            if name != "step":
                curves.setdefault(name, []).append((step, value))
    return curves


def _of_evaluation(name: str) -> bool:
    return name.startswith("eval/")


@dataclass(frozen=True)
class CellState:
    """A cell of a sweep at one moment.

    Attributes:
        step, steps, seconds_left, loss: of a run that has begun; None where unknown.
    """

    name: str
    label: str
    seed: int
    status: Status
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    loss: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class SweepState:
    """A sweep at one moment.

    Attributes:
        seconds_left: of the whole sweep, from the mean time of its finished runs; None before one has finished.
        tokens_per_second: of all running cells together.
        axes: the words that its grid sets.
    """

    folder: str
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[CellState, ...]
    seconds_left: float | None
    tokens_per_second: float | None

    @property
    def counts(self) -> Counter[str]:
        return Counter(cell.status for cell in self.cells)

    @property
    def over(self) -> bool:
        """Whether every cell has finished or failed."""
        return bool(self.cells) and all(cell.status in ("finished", "failed") for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": dict(self.counts), "over": self.over}


class SweepWatch:
    """Watches a sweep folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sweep: SweepRecord | None = None
        self._runs: dict[str, RunWatch] = {}
        self._seconds: dict[str, float | None] = {}

    def state(self) -> SweepState:
        """Its state now.

        Raises:
            AlignzooError: ``sweep.yaml`` is damaged.
        """
        self._sweep = self._sweep or read_sweep(self.folder)
        sweep, cells, speed = self._sweep, list[CellState](), list[float]()
        for cell in sweep.cells:
            status = sweep.status(cell)
            state = CellState(cell.name, cell.label, cell.seed, status)
            if status == "finished":
                self._runs.pop(cell.name, None)
                if cell.name not in self._seconds:
                    self._seconds[cell.name] = _seconds(sweep, cell)
            elif status == "failed":
                state = CellState(cell.name, cell.label, cell.seed, status, failure=sweep.failure(cell))
            elif status != "waiting":
                run = self._runs.setdefault(cell.name, RunWatch(sweep.run_folder(cell))).state()
                loss = run.latest.get("loss")
                state = CellState(cell.name, cell.label, cell.seed, status, run.step, run.steps, run.seconds_left, loss)
                speed += [run.tokens_per_second] if status == "running" and run.tokens_per_second else []
            cells.append(state)
        return SweepState(
            str(self.folder),
            tuple(sweep.axes),
            tuple(sweep.seeds),
            tuple(cells),
            self._left(cells),
            sum(speed) if speed else None,
        )

    def _left(self, cells: list[CellState]) -> float | None:
        """Seconds left: the cells to come, shared by as many workers as are at work now."""
        known = [seconds for seconds in self._seconds.values() if seconds is not None]
        running = [cell for cell in cells if cell.status == "running"]
        if not known or not running:
            return None
        each = sum(known) / len(known)
        begun = sum((cell.step or 0) / cell.steps for cell in running if cell.steps)
        to_come = sum(cell.status in ("waiting", "running", "stopped") for cell in cells) - begun
        return each * to_come / len(running)


def _seconds(sweep: SweepRecord, cell: Cell) -> float | None:
    """How long a finished run took; None if its result cannot be read."""
    try:
        result = read_run(sweep.run_folder(cell)).result
    except AlignzooError:
        return None
    return None if result is None else result.seconds


def watch_of(folder: Path) -> RunWatch | SweepWatch:
    """What watches this folder: of a sweep if it is one, else of a run, which may begin later."""
    return SweepWatch(folder) if (folder / SWEEP_FILE).is_file() else RunWatch(folder)
