"""Generalised cross-entropy on the probability of a pair's label, optionally truncated.

    ℓ = ( 1 − p^q )/q,     p = σ(β·h);     truncated: ( 1 − max(p, k)^q )/q

Zhang, Sabuncu, *Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels*, arXiv 1805.07836,
written for classification; the class here is the label of a pair. h is the difference of log-ratios of response sums,
in nats; β is in 1/nats. q → 0 is DPO, q = 1 is the mean absolute error 1 − p, which random flips do not move. A pair
with p ≤ k costs the same whatever its margin and has no gradient: the minimum over the paper's 0/1 weights of samples,
which prunes them.
"""

from __future__ import annotations

import math

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class GCEOptions(Options):
    """β, in 1/nats, the exponent, and the truncation."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    q: float = Field(0.7, gt=0, le=1, description="from DPO (towards 0) to the noise-tolerant absolute error (1)")
    truncation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability of its label up to which a pair has no gradient; the paper uses 0.5",
        json_schema_extra={"search": [0.0, 0.5]},
    )


class GCE(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: GCEOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        logp = F.logsigmoid(chosen - rejected)
        if self.options.truncation > 0:
            logp = logp.clamp(min=math.log(self.options.truncation))
        return -torch.expm1(self.options.q * logp) / self.options.q

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="gce",
    target=f"{__name__}:GCE",
    options=GCEOptions,
    summary="GCE: between DPO and the noise-tolerant absolute error",
    family="bounded losses",
    formula="(1 − p^q)/q, p = max(σ(βh), k)",
    paper=Paper(
        title="Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
        arxiv="1805.07836",
        authors=("Zhang, Zhilu", "Sabuncu, Mert R."),
        venue="NeurIPS 2018",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(
            against="limits q → 0 (DPO) and q = 1 (1 − p)", test="test_gce_lies_between_dpo_and_the_absolute_error"
        ),
        Verified(
            against="its definition: constant up to p = k", test="test_truncated_gce_is_constant_below_the_threshold"
        ),
    ),
)
