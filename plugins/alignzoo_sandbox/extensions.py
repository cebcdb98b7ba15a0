"""The sandbox's model, data and evaluator extensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignzoo.contract.source import Split
from alignzoo.interfaces import DataSource, EvaluationContext, Evaluator, Table
from alignzoo_sandbox import MODEL_PATH, TRAIN_PAIRS, VALIDATION_PAIRS, preference_rows
from alignzoo_sandbox.evaluate import evaluate, table
from alignzoo_sandbox.judge import judge


def model() -> Path:
    """The folder of the embedded model."""
    return MODEL_PATH


class Pairs(DataSource):
    """The sandbox's preference pairs."""

    def rows(self, split: Split) -> Iterable[Mapping[str, Any]]:
        return preference_rows(split, TRAIN_PAIRS if split == "train" else VALIDATION_PAIRS)


class Answers(Evaluator):
    """Answers to the requests of every evaluation split, judged."""

    def figures(self, run: EvaluationContext) -> dict[str, float]:
        return evaluate(run.model, run.tokenizer, judge=run.judge or judge, report=run.report, record=run.record)

    def table(self, before: Mapping[str, float], after: Mapping[str, float]) -> Table:
        columns = ("generated answers, share of prompts", "before", "after", "broken before", "broken after", "prompts")
        rates = ("before", "after", "broken_before", "broken_after")
        rows = [
            (f"{row['kind']}, {row['split']}", *(f"{row[rate]:.3f}" for rate in rates), str(row["n"]))
            for row in table(before, after)
        ]
        return Table(columns, rows)
