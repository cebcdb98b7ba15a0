"""The sum over a response's tokens.

    log π(y|x) = Σ_t log π(y_t | x, y_<t)

It is the log-prob of the response, in nats, and what losses are written for. Named explicitly (``--aggregation sum``)
it also replaces the mean that a loss would take by itself: SimPO and IPO then read sums.
"""

from __future__ import annotations

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Verified


class Sum(Aggregation):
    """The sums ``(R,)`` as the model gives them."""

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        return logps


CARD = AggregationCard(
    name="sum",
    target=f"{__name__}:Sum",
    summary="Sum of the log-probs of a response's tokens",
    family="plain",
    formula="Σ_t log π(y_t)",
    api=2,
    verified=(Verified(against="autograd in float64", test="test_sum_and_mean_are_of_the_tokens"),),
)
