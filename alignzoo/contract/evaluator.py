"""Evaluators: figures from what a policy generates, before and after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.report import Reporter


@dataclass(frozen=True)
class EvaluationContext:
    """The inputs of an evaluator.

    Attributes:
        model: the policy with all its weights, anything with transformers' ``generate``.
        tokenizer: the policy's.
        judge: the run's judge of answers; None if the evaluator's card names none.
        record: may be called with a set's name, a prompt and its answer, for reports that show answers.
    """

    model: Any
    tokenizer: Any
    judge: Callable[..., Any] | None
    report: Reporter
    record: Callable[[str, str, str], None] = lambda name, prompt, answer: None


@dataclass(frozen=True)
class Table:
    """Rows of text under column titles."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Evaluator:
    """Figures from a policy's own answers, built without arguments; runs on the main process only."""

    def figures(self, run: EvaluationContext) -> Mapping[str, float]:
        """Finite numbers by name, logged under ``EVALUATOR/NAME``.

        Must not change the model, its training flags or the random state.
        """
        raise NotImplementedError

    def validation_figures(self, run: EvaluationContext) -> Mapping[str, float]:
        """The same for choosing options (``--validation``), from prompts that :meth:`figures` never asks; none without
        such prompts."""
        return {}

    def table(self, before: Mapping[str, float], after: Mapping[str, float]) -> Table | None:
        """The table printed at the end of a run, from two results of :meth:`figures`; None prints nothing."""
        return None
