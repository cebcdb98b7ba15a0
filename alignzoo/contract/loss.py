"""Losses: values of pairs, responses or lists from their log-probs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from alignzoo.contract.card import Card, Name
from alignzoo.contract.method import Method
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.responses import ResponseBatch
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
