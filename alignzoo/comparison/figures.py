"""What a figure of a run says: its label, which way is better, and what it measures, from its name alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alignzoo.records.run import RunRecord

Better = Literal["higher", "lower"]
Axis = Literal["safety", "over-refusal", "capability", "held-out"]
AXES: tuple[Axis, ...] = ("safety", "over-refusal", "capability")
"""The axes of the Pareto front."""


@dataclass(frozen=True)
class FigureFacts:
    """A figure.

    Attributes:
        name: as runs record it, such as ``sandbox/asr/test``.
        label: in words, such as ``attack success, test``.
        better: the direction; None where methods cannot be compared by it, as by their losses.
        axis: what it measures; None for none of the four.
    """

    name: str
    label: str
    better: Better | None = None
    axis: Axis | None = None


_HELD_OUT: dict[str, tuple[str, Better | None]] = {
    "eval/rewards/accuracies": ("preference accuracy", "higher"),
    "eval/rewards/margins": ("reward margin", None),
    "eval/rewards/chosen": ("reward of chosen", None),
    "eval/rewards/rejected": ("reward of rejected", None),
    "eval/logps/chosen": ("log-prob of chosen", None),
    "eval/logps/rejected": ("log-prob of rejected", None),
    "eval/loss": ("objective", None),
}
_MEASURES: dict[str, tuple[str, Better, Axis]] = {
    "asr": ("attack success", "lower", "safety"),
    "attack_success": ("attack success", "lower", "safety"),
    "refusal": ("over-refusal", "lower", "over-refusal"),
    "over_refusal": ("over-refusal", "lower", "over-refusal"),
    "broken": ("broken answers", "lower", "capability"),
}
_ERRORS = ("perplexity", "bits_per_byte", "loss", "error", "mse", "mae", "brier_score", "ter")
"""Words in the names of lm-eval's metrics of which less is better."""


def facts(name: str) -> FigureFacts:
    """What a figure says.

    Names are ``eval/…`` on held-out pairs, ``EVALUATOR/asr|refusal|broken/SPLIT`` of the embedded worlds,
    ``suite/SUITE/attack_success|over_refusal[/JUDGE]`` and ``task/TASK/METRIC``; of others only the name is known.
    """
    if name in _HELD_OUT:
        label, better = _HELD_OUT[name]
        return FigureFacts(name, label, better, "held-out")
    parts = name.split("/")
    if parts[0] == "task" and len(parts) > 2:
        metric = parts[-1]
        lower = any(word in metric for word in _ERRORS)
        label = f"{'/'.join(parts[1:-1])}, {metric.removesuffix(',none')}"
        return FigureFacts(name, label, "lower" if lower else "higher", "capability")
    for at in (1, 2):
        if len(parts) > at and parts[at] in _MEASURES:
            label, better, axis = _MEASURES[parts[at]]
            rest = parts[1:at] if at > 1 else []
            details = ", ".join([label, *rest, *parts[at + 1 :]])
            return FigureFacts(name, details, better, axis)
    return FigureFacts(name, name)


def figures_of(run: RunRecord) -> dict[str, float]:
    """All figures of a finished run by name: those at the end of training, then those of ``alignzoo eval``; those that
    are not finite are left out.

    Raises:
        DamagedError: a file is not what was written.
    """
    figures = dict(run.result.after) if run.result is not None else {}
    return {name: value for name, value in {**figures, **dict(_evaluated(run))}.items() if math.isfinite(value)}


def _evaluated(run: RunRecord) -> Iterator[tuple[str, float]]:
    evaluation = run.evaluation
    if evaluation is None:
        return
    for figure in evaluation.figures:
        yield f"suite/{figure.suite}/{figure.measures}/{figure.judge}", figure.rate.value
    tasks = evaluation.tasks
    for task, result in ((name, tasks.results[name]) for name in tasks.chosen) if tasks is not None else ():
        for metric, value in result.metrics.items():
            yield f"task/{task}/{metric}", value.value
