"""Bi-Factorial Preference Optimization: the target margin depends on which responses are safe.

    ℓ = ( h − (1/β)·[ B₃·(B₁·I_w − I_l) − α ] )²,     B₃ = 1/(B₁ − 1),     I = 1 for a safe response, else 0
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Zhang, Torr, Elhoseiny, Bibi, *Bi-Factorial Preference Optimization: Balancing Safety-Helpfulness in Language Models*,
arXiv 2408.15313. y_w is the more *helpful* response; log-probs are sums over response tokens, in nats; β is in
1/nats. At the defaults the target β·h is 1 where only y_w is safe, ½ where both are, −½ where neither is, and −1 where
only y_l is: safety comes before helpfulness, and of two unsafe responses the less helpful one is preferred. Where both
are safe it is IPO.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class BFPOOptions(Options):
    """β, in 1/nats, and the labelling function of the margin."""

    beta: float = Field(0.01, gt=0, description="regularisation strength: target margins are multiples of 1/beta")
    b1: float = Field(
        3.0,
        gt=1,
        description="B₁: how much more the safety of the helpful response counts",
        json_schema_extra={"search": [1.5, 10.0]},
    )
    alpha: float = Field(
        0.5,
        ge=0,
        description="how much the target falls for all pairs, so that unsafe ones reverse",
        json_schema_extra={"search": [0.05, 2.0]},
    )


class BFPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: BFPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        return (chosen - rejected - self.target(pairs).to(chosen.dtype)) ** 2

    def target(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)``: the margin that a pair should have, in nats.

        Raises:
            ValueError: the pairs have no safety labels.
        """
        if pairs.chosen_safe is None or pairs.rejected_safe is None:
            raise ValueError("no safety labels: the method's card must declare needs={'safety'}")
        b1, b3 = self.options.b1, 1 / (self.options.b1 - 1)
        return (b3 * (b1 * pairs.chosen_safe - pairs.rejected_safe) - self.options.alpha) / self.options.beta

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="bfpo",
    target=f"{__name__}:BFPO",
    options=BFPOOptions,
    summary="BFPO: squared loss towards a margin set by safety labels",
    family="squared losses",
    formula="(h − (1/β)·[(B₁·I_w − I_l)/(B₁ − 1) − α])²",
    paper=Paper(
        title="Bi-Factorial Preference Optimization: Balancing Safety-Helpfulness in Language Models",
        arxiv="2408.15313",
        authors=("Zhang, Wenxuan", "Torr, Philip H. S.", "Elhoseiny, Mohamed", "Bibi, Adel"),
        venue="ICLR 2025",
    ),
    needs=frozenset({"reference", "safety"}),
    addresses=frozenset({"safety"}),
    verified=(
        Verified(against="the authors' wx-zhang/bfpo@a1febab", test="test_adapted_losses_equal_the_authors"),
        Verified(against="ipo where both responses are safe", test="test_limits_to_ipo"),
    ),
)
