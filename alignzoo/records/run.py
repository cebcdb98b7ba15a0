"""A run folder as data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.stored import read_object
from alignzoo.contract.result import RunResult
from alignzoo.errors import UsageError
from alignzoo.plan.started import PLAN_FILE, plain_values, plan_as_started, stated_methods

if TYPE_CHECKING:
    from alignzoo.evaluate.results import Evaluation

METRICS_FILE, DATA_FILE, ENVIRONMENT_FILE = "metrics.jsonl", "data.json", "env.json"
EVALUATION_FOLDER = "evaluation"


@dataclass(frozen=True)
class RunRecord:
    """A run, finished or not; each part is read when it is first asked for.

    Attributes:
        folder: the run folder.
        plan: the content of ``plan.yaml``; see :func:`alignzoo.plan.planfile.plan_to_dict`.
    """

    folder: Path
    plan: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def sentence(self) -> str:
        """The methods, as the words of a command line."""
        return str(self.plan["sentence"])

    @cached_property
    def values(self) -> dict[str, Any]:
        """Methods, options and settings by the words that set them: ``loss``, ``loss.beta``, ``lr``, ``seed``."""
        return plain_values(self.plan)

    @property
    def seed(self) -> int:
        return int(self.values["seed"])

    @property
    def methods(self) -> dict[str, list[str]]:
        """The names of the methods, by kind."""
        return {kind: [method["name"] for method in some] for kind, some in stated_methods(self.plan).items()}

    @cached_property
    def result(self) -> RunResult | None:
        """``result.json``; None if the run has not finished.

        Raises:
            DamagedError: it is not what was written.
        """
        return RunResult.load(self.folder)

    @property
    def finished(self) -> bool:
        return self.result is not None

    @cached_property
    def data(self) -> dict[str, Any]:
        """``data.json``: how each part of the data was read; empty before that."""
        return self._object(DATA_FILE)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """``env.json``: versions and hardware; empty before the run has taken its folder."""
        return self._object(ENVIRONMENT_FILE)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, one per optimizer step; an incomplete last line is left out."""
        path = self.folder / METRICS_FILE
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """What ``alignzoo eval`` found, None if it was not run.

        Raises:
            DamagedError: its file is not what was written.
        """
        from alignzoo.evaluate.results import EVALUATION_FILE, read_evaluation

        path = self.folder / EVALUATION_FOLDER / EVALUATION_FILE
        return read_evaluation(path) if path.is_file() else None

    def _object(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_object(path) if path.is_file() else {}


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder.

    Raises:
        UsageError: it is not one.
        AlignzooError: its plan is damaged or was edited.
    """
    if not (folder / PLAN_FILE).is_file():
        raise UsageError(f"{folder} is no run folder: it has no {PLAN_FILE}", hint="name the folder that `run` printed")
    return RunRecord(folder, plan_as_started(folder))
