"""How well a judge agrees with human labels.

An unparsed verdict is an error: it counts against accuracy and recall, and for κ it is a category of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignzoo.contract.judge import Verdict
from alignzoo.evaluate.verdicts.statistics import RESAMPLES, Estimate, kappa_estimate, percentiles, rate


@dataclass(frozen=True)
class Confusion:
    """Counts of label and verdict: true and false positives and negatives, and the unparsed ones of either label."""

    tp: int
    fp: int
    fn: int
    tn: int
    unparsed_positive: int
    unparsed_negative: int

    @property
    def unparsed(self) -> int:
        return self.unparsed_positive + self.unparsed_negative


@dataclass(frozen=True)
class Figures:
    """A judge against labels; the figures of a class are those of the positive one.

    Attributes:
        accuracy, precision, recall, specificity: shares with their Wilson intervals.
        f1, kappa: with their percentile bootstrap intervals over responses.
    """

    confusion: Confusion
    accuracy: Estimate
    kappa: Estimate
    precision: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate

    def as_json(self) -> dict[str, Any]:
        """As JSON; a share of nothing is null."""
        found = asdict(self)
        for name, figure in found.items():
            if name != "confusion":
                found[name] = {part: None if value != value else value for part, value in figure.items()}
        return found


def figures(labels: Sequence[bool], verdicts: Sequence[Verdict]) -> Figures:
    """The figures of a judge's verdicts on labelled responses."""
    given = [verdict.positive for verdict in verdicts]
    pairs = list(zip(labels, given, strict=True))
    confusion = Confusion(
        tp=pairs.count((True, True)),
        fp=pairs.count((False, True)),
        fn=pairs.count((True, False)),
        tn=pairs.count((False, False)),
        unparsed_positive=pairs.count((True, None)),
        unparsed_negative=pairs.count((False, None)),
    )
    positives = sum(labels)
    return Figures(
        confusion=confusion,
        accuracy=rate(confusion.tp + confusion.tn, len(pairs)),
        kappa=kappa_estimate(list(labels), given),
        precision=rate(confusion.tp, confusion.tp + confusion.fp),
        recall=rate(confusion.tp, positives),
        specificity=rate(confusion.tn, len(pairs) - positives),
        f1=_f1(labels, given),
    )


def _f1(labels: Sequence[bool], given: Sequence[bool | None], seed: int = 0) -> Estimate:
    import numpy as np

    truth = np.asarray(labels, dtype=bool)
    said = np.asarray([one is True for one in given], dtype=bool)
    draws = np.random.default_rng(seed).integers(0, len(truth), (RESAMPLES, len(truth)))

    def score(rows: Any) -> Any:
        both, either = (truth[rows] & said[rows]).sum(axis=-1), truth[rows].sum(axis=-1) + said[rows].sum(axis=-1)
        return np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0)

    return Estimate(float(score(np.arange(len(truth)))), *percentiles(score(draws)), len(truth))
