"""A run's results: figures before and after training, as tables and as ``result.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.base.files import write_json
from alignzoo.base.stored import read_as, sealed
from alignzoo.evaluate.answers import Answers
from alignzoo.report import Reporter

EVALUATION_FILE = "evaluation.json"

OBJECTIVE = "eval/loss"
SUITE = "suite/"
"""How the names of the suites' figures begin."""
_TERM = re.compile(r"eval/loss/([^/]+)/value")
"""A term of a mixture before its weight; see :meth:`alignzoo.objective.objective.Objective.metrics`."""
HELD_OUT_ROWS = (
    ("eval/rewards/accuracies", "preference accuracy", "{:.3f}"),
    ("eval/rewards/margins", "reward margin", "{:+.4f}"),
    (OBJECTIVE, "objective", "{:.4f}"),
    ("eval/logps/chosen", "log-prob of chosen", "{:.2f}"),
    ("eval/logps/rejected", "log-prob of rejected", "{:.2f}"),
)


@dataclass(frozen=True)
class _Evaluation:
    """The content of ``evaluation.json``."""

    before: dict[str, float]
    after: dict[str, float] = field(default_factory=dict)


def read_before(folder: Path) -> dict[str, float] | None:
    """The figures before training that an interrupted run left in its folder.

    Raises:
        DamagedError: they are not what was written.
    """
    path = folder / EVALUATION_FILE
    return read_as(path, _Evaluation).before if path.is_file() else None


def write_evaluation(folder: Path, **figures: dict[str, float]) -> None:
    """Write ``evaluation.json`` (``before``, and ``after`` at the end), whole or not at all."""
    write_json(folder / EVALUATION_FILE, sealed(figures))


def report_outcome(
    before: Mapping[str, float],
    after: Mapping[str, float],
    report: Reporter,
    answers: Answers | None = None,
    *,
    noun: str = "pairs",
) -> None:
    """The tables at the end of a run, before → after, and the warnings that follow; ``noun``: rows of the data."""
    rows = [
        (label, shape.format(before[name]), shape.format(after[name]))
        for name, label, shape in _held_out_rows(before)
        if name in before and name in after
    ]
    if rows:
        report.table(f"held-out {noun}", ("", "before", "after"), rows)
    suites = [
        (_suite_label(name), f"{before[name]:.3f}", f"{after[name]:.3f}")
        for name in after
        if name.startswith(SUITE) and name in before
    ]
    if suites:
        report.table("suites, share of prompts", ("", "before", "after"), suites)
    if answers is not None:
        answers.report(before, after, report)
    warn_of_displacement(before, after, report)


def _suite_label(name: str) -> str:
    """``attack success, harmbench``, with the judge where it is not the first."""
    suite, measures, *judge = name.removeprefix(SUITE).split("/")
    return f"{measures.replace('over_', 'over-').replace('_', ' ')}, {suite}" + "".join(f" ({one})" for one in judge)


def _held_out_rows(figures: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """The rows of the table: of a mixture, each term below the objective."""
    found: list[tuple[str, str, str]] = []
    for row in HELD_OUT_ROWS:
        found.append(row)
        if row[0] == OBJECTIVE:
            terms = [_TERM.fullmatch(name) for name in figures]
            found += [(term[0], f"  term {term[1]}", row[2]) for term in terms if term]
    return found


def warn_of_displacement(before: Mapping[str, float], after: Mapping[str, float], report: Reporter) -> None:
    """Warn if the chosen responses became less likely together with the rejected ones."""
    names = ("eval/logps/chosen", "eval/logps/rejected")
    if not all(name in before and name in after for name in names):
        return
    chosen, rejected = (after[name] - before[name] for name in names)
    if chosen < 0 and rejected < 0 and -chosen > 0.01 * abs(before[names[0]]):
        report.warn(
            f"likelihood displacement: chosen responses lost {-chosen:.2f} nats on average, rejected ones "
            f"{-rejected:.2f}; a lower --lr, fewer steps or a stronger KL constraint reduce this"
        )
