"""The mean over a response's tokens.

    (1/|y|) · Σ_t log π(y_t | x, y_<t)

|y| counts response tokens, EOS included; the result is in nats per token, so that long responses weigh no more than
short ones. SimPO is defined on it; under it DPO is length-normalised DPO (TRL's ``sigmoid_norm``), whose β is larger.
"""

from __future__ import annotations

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch
from alignzoo.plugin import AggregationCard, Verified


class Mean(Aggregation):
    """Sums ``(R,)`` divided by lengths."""

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        return logps / responses.lengths


CARD = AggregationCard(
    name="mean",
    target=f"{__name__}:Mean",
    summary="Mean of the log-probs of a response's tokens",
    family="plain",
    formula="(1/|y|)·Σ_t log π(y_t)",
    api=2,
    verified=(
        Verified(against="autograd in float64", test="test_sum_and_mean_are_of_the_tokens"),
        Verified(against="golden values (dpo-norm)", test="test_dpo_under_mean_has_the_golden_values_of_dpo_norm"),
    ),
)
