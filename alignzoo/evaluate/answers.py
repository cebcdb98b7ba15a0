"""Figures from generated answers, by the evaluator of the run's data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from alignzoo.contract.card import EvaluatorExtension
from alignzoo.contract.evaluator import EvaluationContext, Evaluator, Table
from alignzoo.errors import BrokenPluginError, MethodError
from alignzoo.plan.extensions import evaluator_of, judge_of
from alignzoo.plan.judges import is_function
from alignzoo.plan.plan import Plan
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import FOR_THE_TRACEBACK, guarded
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter

RECORDED = 128
_WITHOUT = f"{FOR_THE_TRACEBACK}, or leave generated answers out with --no-samples"


def answers_of(plan: Plan) -> Answers | None:
    """The evaluator of a run's data with its judge; None if the data has none, or with ``--no-samples``.

    Raises:
        BrokenPluginError: the evaluator or the judge does not load.
    """
    known, settings = registry(), plan.settings
    card = evaluator_of(settings, known)
    if card is None or not settings.samples:
        return None
    named = [method.card for method in plan.of("judge") if is_function(method)]
    judge = named[0] if named else judge_of(settings, known)
    with guarded(
        f"evaluator {card.name!r} cannot be built from {card.target}",
        error=BrokenPluginError,
        hint="fix its plugin, or skip generated answers with --no-samples",
        passes=(BrokenPluginError,),
    ):
        evaluator = import_target(card)()
    return Answers(card, evaluator, None if judge is None else import_target(judge), settings.validation)


@dataclass(frozen=True)
class Answers:
    """A built evaluator; its figures are named ``EVALUATOR/…``.

    Attributes:
        said: the answers of the last :meth:`figures`, by set and prompt, as far as the evaluator records them and at
            most :data:`RECORDED` of each set.
        validation: whether to take its figures for choosing options.
    """

    card: EvaluatorExtension
    evaluator: Evaluator
    judge: Any
    validation: bool = False
    said: dict[tuple[str, str], str] = field(default_factory=dict)

    def figures(self, model: Any, tokenizer: Any, report: Reporter) -> dict[str, float]:
        """Figures at the model's current weights, on one process.

        Raises:
            MethodError: the evaluator fails, or returns something other than finite numbers.
        """
        self.said.clear()
        counts = Counter[str]()

        def record(name: str, prompt: str, answer: str) -> None:
            counts[name] += 1
            if counts[name] <= RECORDED:
                self.said[name, prompt] = answer

        context = EvaluationContext(model, tokenizer, self.judge, report, record)
        with guarded(f"{self._name} failed", hint=_WITHOUT):
            evaluate = self.evaluator.validation_figures if self.validation else self.evaluator.figures
            figures = dict(evaluate(context))
        for name, value in figures.items():
            if not isinstance(value, Real) or not math.isfinite(value):
                raise MethodError(f"{self._name} gave {value!r} for {name!r}, expected a finite number", hint=_WITHOUT)
        return {f"{self.card.name}/{name}": float(value) for name, value in figures.items()}

    def report(self, before: Mapping[str, float], after: Mapping[str, float], report: Reporter) -> None:
        """Print the evaluator's table of two results of :meth:`figures`, which may be part of larger ones.

        Raises:
            MethodError: the evaluator fails on its own figures.
        """
        old, new = self._own(before), self._own(after)
        if self.validation or not old or not new:
            return
        with guarded(f"{self._name} failed", hint=_WITHOUT):
            table = self.evaluator.table(old, new)
            if isinstance(table, Table):
                report.table(self.card.name, table.columns, [list(map(str, row)) for row in table.rows])

    def _own(self, figures: Mapping[str, float]) -> dict[str, float]:
        prefix = f"{self.card.name}/"
        return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}

    @property
    def _name(self) -> str:
        return f"evaluator {self.card.name!r}"
