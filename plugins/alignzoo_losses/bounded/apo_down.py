"""Anchored Preference Optimization that lowers both responses, the rejected one more.

    ℓ = σ(β·a) + ( 1 − σ(β·h) ),     a = log π_w − log π_ref,w,     h = a − (log π_l − log π_ref,l)

D'Oosterlinck et al., *Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
Alignment*, arXiv 2408.06266. Log-ratios are sums over response tokens, in nats; β is in 1/nats. The authors use it
where the policy's own answers are better than the chosen ones, and ``apo-zero`` where they are worse. Values lie in
(0, 2), with almost no gradient far from the reference. It is meant to lower the chosen response: a higher chosen
log-prob can cost more, also in a pair that is ranked wrongly.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class APODownOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class APODown(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: APODownOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="apo-down",
    target=f"{__name__}:APODown",
    options=APODownOptions,
    summary="APO-down: both responses down, the rejected one further",
    family="bounded losses",
    formula="σ(βa) + (1 − σ(βh)), a the log-ratio of chosen, h the difference of log-ratios",
    paper=Paper(
        title="Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        arxiv="2408.06266",
        authors=("D'Oosterlinck, Karel", "others"),
    ),
    needs=frozenset({"reference"}),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
