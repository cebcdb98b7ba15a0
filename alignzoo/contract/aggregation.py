"""Aggregations: from the log-probs of a response's tokens to the log-prob of the response."""

from __future__ import annotations

from typing import Literal

from alignzoo.contract.card import Card
from alignzoo.contract.method import Method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.lazy import torch


class AggregationCard(Card):
    """The facts of an aggregation."""

    kind: Literal["aggregation"] = "aggregation"


class Aggregation(Method):
    """One log-prob per response from those of its tokens, computed alike for policy and reference."""

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        """``(R,)``, differentiable in the log-probs; called once for the policy and once for the reference.

        Args:
            logps: ``(R,)`` sums over tokens.
            token_logps: ``(R, T)``, 0 outside the mask; None unless the card needs ``token-logps``.
            responses: lengths, mask and prompts, the same in both calls. Do not use its log-probs: they may be the
                other model's.
        """
        raise NotImplementedError
