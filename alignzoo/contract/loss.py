"""Losses: values of pairs, responses or lists from their log-probs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

from alignzoo.contract.card import WEIGHT, Card, Name
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import ResponseBatch
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.lazy import torch

Reads = Literal["pairs", "responses", "lists", "chosen"]
"""The unit a loss has one value for:

=============  =====================================================================================================
``pairs``      a pair; called with a :class:`PairBatch`
``responses``  a response with its label; called with a :class:`ResponseBatch`, including KL responses
``lists``      a prompt with its ranked responses; called with a :class:`ResponseBatch`
``chosen``     a response to imitate: the chosen one of a pair, the best of a list, or one that is labelled +1 or not
               at all; called with a :class:`ResponseBatch` of only these
=============  =====================================================================================================
"""


READS: dict[Reads, str] = {
    "pairs": "pairs",
    "responses": "labelled responses",
    "lists": "ranked responses to a prompt",
    "chosen": "the responses to imitate",
}
"""What a loss reads, in words."""


class LossCard(Card):
    """The facts of a loss.

    Attributes:
        reads: the unit it has one value for.
        aggregation: its default aggregation of token log-probs into the log-prob of a response.
        under: the aggregations that it is defined under; empty for any.
        batch_coupled: a value depends on the other pairs or responses of the step.
        swaps: whether it is defined under the opposite labels, as the loss of the swapped pairs or
            responses.
        anchorable: whether it can be evaluated relative to an anchor that replaces the reference; not if it recognises
            pairs by the reference's log-probs.
    """

    kind: Literal["loss"] = "loss"
    reads: Reads = "pairs"
    aggregation: Name = "sum"
    under: frozenset[Name] = frozenset()
    batch_coupled: bool = False
    swaps: bool = True
    anchorable: bool = True

    @model_validator(mode="after")
    def _weight_is_free(self) -> LossCard:
        if self.api > 1 and WEIGHT in self.options.model_fields:
            raise ValueError(f"`{WEIGHT}` is reserved for weights in a mixture; rename the option")
        return self

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("reads", READS[self.reads]),
            ("aggregation", f"{self.aggregation}{', and no other' if self.under == {self.aggregation} else ''}"),
            ("batch-coupled", "yes, a value depends on the others in the step" if self.batch_coupled else "no"),
            ("opposite label", "defined" if self.swaps else "undefined: no method may swap its labels"),
        ]


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Methods that evaluate the first loss, the one inside the wrappers, under the opposite label, where it is not
    defined; a wrapper of other losses is refused as one."""
    first = choice["loss"][0].card
    reads = getattr(first, "reads", "pairs")
    for method in (method for methods in choice.values() for method in methods):
        wraps = reads in getattr(method.card, "around", (reads,))
        if wraps and "swap" in method.needs and not getattr(first, "swaps", True):
            kind, name = method.card.kind, method.card.name
            yield IncompatibleError(
                f"{kind} {name!r} evaluates the loss under the opposite label, where loss {first.name!r} is not "
                "defined (swaps=False)",
                hint=f"choose another loss, or leave out --{kind} {name}",
                rule="the loss must be defined under the opposite label",
            )


class PreferenceLoss(Method):
    """One value per pair, response or list (the card's ``reads``), from log-probs."""

    def __call__(self, batch: Any) -> torch.Tensor:
        """Values ``(N,)``, differentiable in the policy's fields. Never reduced.

        Args:
            batch: a :class:`PairBatch` if the card reads ``pairs``, else a :class:`ResponseBatch`; N is the number of
                pairs, of the policy's responses (``responses``, ``chosen``) or of prompts (``lists``).
        """
        raise NotImplementedError

    def rewards(self, batch: Any) -> Any:
        """Implicit rewards, for metrics: ``(chosen, rejected)``, each ``(N,)``, for pairs; else ``(R,)``, one per
        response that is not a KL response, in order."""
        raise NotImplementedError

    def observe(self, batch: Any) -> None:
        """Update running statistics from the whole step's batch, detached; called once per optimizer step.

        With ``batch_coupled`` it is called before the step's first evaluation, which takes an extra forward pass if the
        step has several micro-batches. Otherwise it is called at the end of the step, so the statistics are those of
        previous steps.
        """

    def metrics(self, batch: Any) -> Mapping[str, float | torch.Tensor]:
        """Numbers to log each step as ``loss/NAME/KEY``, from the whole step's batch before the update."""
        return {}


__all__ = ["LossCard", "PairBatch", "PreferenceLoss", "Reads", "ResponseBatch"]
