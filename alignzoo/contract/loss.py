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
"""What a loss gives one value for:

=============  =====================================================================================================
``pairs``      a pair; it is called with a :class:`PairBatch`
``responses``  a response, with its label; it is called with a :class:`ResponseBatch`, KL responses included
``lists``      a prompt with its responses in order of preference; called with a :class:`ResponseBatch`
``chosen``     a response to imitate: the chosen one of a pair, the best of a list, and those labelled +1 or not at all;
               called with a :class:`ResponseBatch` of just these
=============  =====================================================================================================
"""


READS: dict[Reads, str] = {
    "pairs": "pairs",
    "responses": "responses, each with its label",
    "lists": "a prompt's responses in order of preference",
    "chosen": "the responses to imitate",
}
"""What a loss reads, in words."""


class LossCard(Card):
    """The facts of a loss.

    Attributes:
        reads: what it gives one value for.
        aggregation: how token log-probs become the log-prob of a response where the run asks for no other way.
        batch_coupled: a value depends on the other pairs or responses of the step.
        swaps: on pairs or responses with the opposite labels it is the loss of these; False where it has no such
            meaning.
    """

    kind: Literal["loss"] = "loss"
    reads: Reads = "pairs"
    aggregation: Name = "sum"
    batch_coupled: bool = False
    swaps: bool = True

    @model_validator(mode="after")
    def _weight_is_free(self) -> LossCard:
        if self.api > 1 and WEIGHT in self.options.model_fields:
            raise ValueError(f"`{WEIGHT}` is a word of every loss in a mixture; give the option another name")
        return self

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("reads", READS[self.reads]),
            ("aggregation", self.aggregation),
            ("batch-coupled", "yes: a value depends on the others of the step" if self.batch_coupled else "no"),
            ("opposite label", "has a meaning" if self.swaps else "has no meaning: no method may swap its labels"),
        ]


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Methods that evaluate the first loss, the one inside of the wrappers, under the opposite label, where it has no
    meaning there."""
    first = choice["loss"][0].card
    for method in (method for methods in choice.values() for method in methods):
        if "swap" in method.needs and not getattr(first, "swaps", True):
            kind, name = method.card.kind, method.card.name
            yield IncompatibleError(
                f"{kind} {name!r} evaluates the loss under the opposite label, and loss {first.name!r} says that it "
                "has no meaning there (swaps=False)",
                hint=f"choose another loss, or leave out --{kind} {name}",
            )


class PreferenceLoss(Method):
    """One value per pair, response or list, as its card says, from log-probs."""

    def __call__(self, batch: Any) -> torch.Tensor:
        """Values ``(N,)``, differentiable in the policy's fields. Never reduced.

        Args:
            batch: a :class:`PairBatch` where the card reads ``pairs``, else a :class:`ResponseBatch`; N is the number
                of pairs, of the policy's responses (``responses``, ``chosen``) or of prompts (``lists``).
        """
        raise NotImplementedError

    def rewards(self, batch: Any) -> Any:
        """Implicit rewards, for metrics: ``(chosen, rejected)``, each ``(N,)``, of pairs; else ``(R,)``, one for each
        response of the batch that is not a KL response, in their order."""
        raise NotImplementedError

    def observe(self, batch: Any) -> None:
        """Update running statistics from the whole step's batch, detached; called once per optimizer step.

        With ``batch_coupled`` it is called before the step's first evaluation, which takes an extra forward pass where
        a step has several micro-batches. Without, it is called when the step is over: the statistics are those of the
        steps before.
        """

    def metrics(self, batch: Any) -> Mapping[str, float | torch.Tensor]:
        """Numbers to log with each step as ``loss/NAME/KEY``, from the whole step's batch at the weights before it."""
        return {}


__all__ = ["LossCard", "PairBatch", "PreferenceLoss", "Reads", "ResponseBatch"]
