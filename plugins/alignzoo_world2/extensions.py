"""The models, data and evaluators of world 2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from alignzoo.contract.source import Split
from alignzoo.interfaces import DataSource, EvaluationContext, Evaluator, Table
from alignzoo_world2 import MODELS
from alignzoo_world2.evaluate import evaluate
from alignzoo_world2.generate import (
    EVALUATION_PROMPTS,
    TRAIN_PAIRS,
    VALIDATION_PAIRS,
    preference_rows,
)


def model_0() -> Path:
    """The folder of world 0's model."""
    return MODELS / "0"


def model_1() -> Path:
    """The folder of world 1's model."""
    return MODELS / "1"


def model_2() -> Path:
    """The folder of world 2's model."""
    return MODELS / "2"


@cache
def _rows(split: Split, world: int) -> tuple[dict[str, Any], ...]:
    """Drawn once a process; readers copy rows before they change them."""
    return tuple(preference_rows(split, TRAIN_PAIRS if split == "train" else VALIDATION_PAIRS, world=world))


class Pairs(DataSource):
    """The preference pairs of a world."""

    world: ClassVar[int] = 0

    def rows(self, split: Split) -> Iterable[Mapping[str, Any]]:
        return _rows(split, self.world)


class Pairs1(Pairs):
    """The preference pairs of world 1."""

    world = 1


class Pairs2(Pairs):
    """The preference pairs of world 2."""

    world = 2


class Pairs3(Pairs):
    """The preference pairs of world 3."""

    world = 3


class Pairs4(Pairs):
    """The preference pairs of world 4."""

    world = 4


class Answers(Evaluator):
    """Answers to the requests of the splits that a report may cite, judged."""

    def figures(self, run: EvaluationContext) -> dict[str, float]:
        return evaluate(run.model, run.tokenizer, report=run.report, record=run.record)

    def validation_figures(self, run: EvaluationContext) -> dict[str, float]:
        return evaluate(run.model, run.tokenizer, ("validation",), report=run.report)

    def table(self, before: Mapping[str, float], after: Mapping[str, float]) -> Table:
        labels = {"asr": "attack success", "refusal": "over-refusal", "broken": "broken"}
        rows = [
            (f"{labels[figure]}, {split}", f"{before[name]:.3f}", f"{after[name]:.3f}")
            for name in after
            for figure, split in [name.split("/")]
        ]
        return Table((f"answers to {EVALUATION_PROMPTS:,} prompts a split", "before", "after"), rows)
