"""A sweep folder as data.

::

    sweep.yaml          what was asked: axes, seeds, and the cells in the order in which they run
    runs/CELL/          one run folder per cell
    failures/CELL.json  of a cell that failed: its error, until it is retried
    logs/CELL.log       what a cell printed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignzoo.base.lock import is_locked
from alignzoo.base.safe_yaml import YAMLFault, read_yaml
from alignzoo.base.stored import read_as, unsealed
from alignzoo.contract.result import RESULT_FILE
from alignzoo.errors import DamagedError, UsageError
from alignzoo.plan.started import PLAN_FILE
from alignzoo.records.run import RunRecord, read_run

SWEEP_FILE, RUNS_FOLDER, FAILURES_FOLDER, LOGS_FOLDER = "sweep.yaml", "runs", "failures", "logs"

Status = Literal["waiting", "running", "stopped", "failed", "finished"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder below ``runs/``.
        values: what its axes set, by the words that set them; the seed is not among them.
        seed: of the run.
    """

    name: str
    values: Mapping[str, Any]
    seed: int

    @property
    def label(self) -> str:
        """The values of the axes, as ``loss=dpo geometry=sam``; the same for all seeds."""
        return " ".join(f"{word}={shown_value(value)}" for word, value in self.values.items()) or "all"


@dataclass(frozen=True)
class Failure:
    """Why a cell failed.

    Attributes:
        error: the message.
        hint: what to do about it.
        exit_code: of the error; see docs/runs.md.
    """

    error: str
    hint: str | None
    exit_code: int


@dataclass(frozen=True)
class SweepRecord:
    """A sweep.

    Attributes:
        axes: the values of each axis, by the word that it sets, in the order of the command line.
        seeds: of every point of the grid.
        cells: all runs, in the order in which they run.
        recipe: the words shared by all runs, by the origin that set them.
        skipped: points of the grid that cannot run, by their label, and why.
        keep_models: whether finished runs keep their model and checkpoints.
    """

    folder: Path
    axes: Mapping[str, list[Any]]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    keep_models: bool = False

    def run_folder(self, cell: Cell) -> Path:
        return self.folder / RUNS_FOLDER / cell.name

    def log(self, cell: Cell) -> Path:
        return self.folder / LOGS_FOLDER / f"{cell.name}.log"

    def failure(self, cell: Cell) -> Failure | None:
        """Why it failed; None if it did not.

        Raises:
            DamagedError: the record of it is not what was written.
        """
        path = self.folder / FAILURES_FOLDER / f"{cell.name}.json"
        return read_as(path, Failure) if path.is_file() else None

    def status(self, cell: Cell) -> Status:
        """``stopped`` is a run that can be resumed."""
        folder = self.run_folder(cell)
        if (folder / RESULT_FILE).is_file():
            return "finished"
        if is_locked(folder) or is_locked(folder.parent, cell.name):
            return "running"
        if self.failure(cell) is not None:
            return "failed"
        return "stopped" if (folder / PLAN_FILE).is_file() else "waiting"

    def finished(self) -> Iterator[tuple[Cell, RunRecord]]:
        """The finished cells with their runs."""
        for cell in self.cells:
            folder = self.run_folder(cell)
            if (folder / RESULT_FILE).is_file():
                yield cell, read_run(folder)


def shown_value(value: Any) -> str:
    """The value of an axis, as it is typed."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(shown_value, value)) or "none"
    if isinstance(value, Mapping):
        name = value.get("name", "")
        return ",".join([str(name), *(f"{key}={shown_value(one)}" for key, one in value.items() if key != "name")])
    return "none" if value is None else str(value)


def is_sweep(folder: Path) -> bool:
    """Whether it is a sweep's folder."""
    return (folder / SWEEP_FILE).is_file()


def read_sweep(folder: Path) -> SweepRecord:
    """The record of a sweep folder.

    Raises:
        UsageError: it is not one.
        DamagedError: ``sweep.yaml`` is not what was written.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is no sweep folder: it has no {SWEEP_FILE}", hint="name the folder of --out")
    try:
        read = read_yaml(path)
        if not isinstance(read, dict):
            raise DamagedError(path, "it contains no sweep")
        content = unsealed(read, path)
        cells = tuple(Cell(cell["name"], cell["values"], cell["seed"]) for cell in content["cells"])
        known = {name: content[name] for name in ("skipped", "keep_models") if name in content}
        return SweepRecord(folder, content["axes"], tuple(content["seeds"]), cells, content["recipe"], **known)
    except YAMLFault as error:
        raise DamagedError(path, str(error)) from error
    except (KeyError, TypeError) as error:
        raise DamagedError(path, f"it lacks {error}") from error
