"""An observer that keeps the step with the best reward margin on held-out pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.observers import RunObserver

FILE = "best_margin.json"
MARGIN, ACCURACY = "eval/rewards/margins", "eval/rewards/accuracies"


class BestMargin(RunObserver):
    """Writes ``best_margin.json`` into the run folder: ``step``, ``margin`` (mean difference of implicit rewards over
    the held-out pairs) and ``accuracy`` (share of them in the right order) of the best evaluation so far.

    A resumed run continues from what it finds there. Evaluations without a margin, as of a run that holds no pairs out,
    leave nothing.
    """

    def __init__(self) -> None:
        self._file: Path | None = None
        self._best: float | None = None

    def on_start(self, folder: Path, plan: Mapping[str, Any], steps: int) -> None:
        self._file = folder / FILE
        self._best = json.loads(self._file.read_text(encoding="utf-8"))["margin"] if self._file.is_file() else None

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        margin = figures.get(MARGIN)
        if self._file is None or margin is None or (self._best is not None and margin <= self._best):
            return
        self._best = margin
        facts = {"step": step, "margin": margin, "accuracy": figures.get(ACCURACY)}
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        draft.replace(self._file)  # whole or not there: a run can be killed at any time
