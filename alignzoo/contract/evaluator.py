"""Evaluators: figures from what a policy generates, before and after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.report import Reporter


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluator works with.

    Attributes:
        model: the policy with all its weights, anything with transformers' ``generate``.
        tokenizer: the policy's.
        judge: what the run judges answers by; None where the evaluator's card names no judge.
    """

    model: Any
    tokenizer: Any
    judge: Callable[..., Any] | None
    report: Reporter


@dataclass(frozen=True)
class Table:
    """Rows of text under their column titles."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Evaluator:
    """Figures from a policy's own answers, built without arguments; runs on the main process only."""

    def figures(self, run: EvaluationContext) -> Mapping[str, float]:
        """Finite numbers by name; the run logs them under ``EVALUATOR/NAME``.

        Leave the model, its training flags and the random state as they were found.
        """
        raise NotImplementedError

    def table(self, before: Mapping[str, float], after: Mapping[str, float]) -> Table | None:
        """What a run prints at its end, from two results of :meth:`figures`; None prints nothing."""
        return None
