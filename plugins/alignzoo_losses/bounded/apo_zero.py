"""Anchored Preference Optimization that raises the chosen response and lowers the rejected one.

    ℓ = ( 1 − σ(β·a) ) + σ(β·b),     a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

D'Oosterlinck et al., *Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
Alignment*, arXiv 2408.06266. Log-ratios are sums over response tokens, in nats; β is in 1/nats. Each response is
anchored at the reference on its own, so the margin cannot grow by lowering both. The authors use it where the chosen
response is better than the policy's own, and ``apo-down`` where it is worse. Values lie in (0, 2): a response far from
the reference, on the right side or on the wrong one, has almost no gradient.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class APOZeroOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class APOZero(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: APOZeroOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.sigmoid(-chosen) + torch.sigmoid(rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="apo-zero",
    target=f"{__name__}:APOZero",
    options=APOZeroOptions,
    summary="APO-zero: chosen up and rejected down, each relative to the reference",
    family="bounded losses",
    formula="(1 − σ(βa)) + σ(βb), a and b the log-ratios of chosen and rejected",
    paper=Paper(
        title="Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        arxiv="2408.06266",
        authors=("D'Oosterlinck, Karel", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
