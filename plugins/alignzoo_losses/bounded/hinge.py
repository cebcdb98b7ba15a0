"""Hinge loss on the difference of log-ratios.

    ℓ = max( 0, 1 − β·h ),     h = (log π_w − log π_ref,w) − (log π_l − log π_ref,l)

Liu et al., *Statistical Rejection Sampling Improves Preference Optimization* (RSO), arXiv 2309.06657, the hinge-norm
loss; β (γ in the paper) is in 1/nats. A pair whose margin exceeds 1/β has no gradient. This is only RSO's loss: the
paper also draws its pairs from the estimated optimal policy by rejection sampling. SLiC, its origin, has no reference
(``--loss slic``).
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class HingeOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.05, gt=0, description="inverse of the margin in nats at which a pair costs nothing")


class Hinge(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: HingeOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.relu(1 - (chosen - rejected))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="hinge",
    target=f"{__name__}:Hinge",
    options=HingeOptions,
    summary="Hinge loss on the difference of log-ratios, the loss of RSO",
    family="bounded losses",
    formula="max(0, 1 − βh), h the difference of log-ratios",
    paper=Paper(
        title="Statistical Rejection Sampling Improves Preference Optimization",
        arxiv="2309.06657",
        authors=("Liu, Tianqi", "others"),
        venue="ICLR 2024",
    ),
    needs=frozenset({"reference"}),
    aliases=("rso",),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
