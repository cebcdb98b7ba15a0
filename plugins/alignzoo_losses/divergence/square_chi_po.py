"""Square χPO: χPO with a squared loss on the probability of the label, debiased for random flips.

    ℓ = ( σ(m) − y )²,     m = clip( β·[ φ(a) − φ(b) ], ±2R ),     φ(x) = e^x + x,     y = ½ + ½/(1 − 2η)
    a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

Zhou et al., *SquareχPO: Differentially Private and Robust χ²-Preference Optimization in Offline Direct Alignment*,
arXiv 2505.21395: the logistic loss of χPO becomes a squared one. Labels that were flipped at random with probability η,
for privacy (randomised response, η = 1/(1 + e^ε)) or by noise, have the debiased target y: its expectation over flips
is the target of the true label. Everything beyond "χPO with a square loss" is our derivation.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.divergence import links


class SquareChiPOOptions(Options):
    """β, the bound of rewards, and how often labels are wrong."""

    beta: float = Field(0.1, gt=0, description="strength of the constraint to the reference")
    radius: float | None = Field(
        None, gt=0, description="R: margins are clipped at ±2R (default: not clipped)", examples=[0.1, 1.0]
    )
    flip_rate: float = Field(0.0, ge=0, lt=0.5, description="η: probability that a label was flipped")


class SquareChiPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(e^x + x) of the log-ratios x, not clipped."""

    options: SquareChiPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        if self.options.radius is not None:
            margin = margin.clamp(-2 * self.options.radius, 2 * self.options.radius)
        return (torch.sigmoid(margin) - 0.5 - 0.5 / (1 - 2 * self.options.flip_rate)) ** 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * links.chi_squared_kl(chosen), self.options.beta * links.chi_squared_kl(rejected)


CARD = Card(
    kind="loss",
    name="square-chi-po",
    target=f"{__name__}:SquareChiPO",
    options=SquareChiPOOptions,
    summary="Square χPO: χPO with a squared loss, for flipped labels",
    family="divergences",
    formula="(σ(clip(β·[φ(a) − φ(b)], ±2R)) − ½ − ½/(1 − 2η))², φ(x) = e^x + x",
    paper=Paper(
        title="SquareχPO: Differentially Private and Robust χ²-Preference Optimization in Offline Direct Alignment",
        arxiv="2505.21395",
        authors=("Zhou, Xingyu", "Wu, Yulian", "Weng, Wenqian", "Orabona, Francesco"),
        venue="ICML 2025",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise", "overoptimisation"}),
    experimental="confirmed is only the squared loss on χPO's probability; constants, clipping and debiasing are ours",
    verified=(
        Verified(
            against="derivation: its gradient is unbiased under label flips",
            test="test_square_chi_po_is_unbiased_under_flips",
        ),
        Verified(against="the definition of f, differentiated by autograd", test="test_links_are_derivatives_of_f"),
    ),
)
