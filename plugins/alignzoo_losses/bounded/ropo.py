"""ROPO: a blend of the logistic loss and its noise-tolerant complement.

    ℓ = 4α/(1+α)²·( −log σ(t) ) + 4α²/(1+α)²·σ(−t),     t = β·h

Liang et al., *ROPO: Robust Preference Optimization for Large Language Models*, arXiv 2404.04102. h is the difference of
log-ratios of response sums, in nats; β is in 1/nats. For α ≥ 1 the factors make the steepest slope −1, at
σ(−t) = (1+α)/(2α): pairs that are ranked wrongly by more than that count less. α → ∞ gives 4·σ(−t), which is symmetric.

The loss alone: the paper also filters the pairs of highest loss between rounds and samples new ones. No authors' code
was found; the formula follows a re-implementation by the authors of SymPO.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class ROPOOptions(Options):
    """β, in 1/nats, and the blend."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    alpha: float = Field(14.0, gt=0, description="weight of the noise-tolerant part relative to the logistic one")


class ROPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: ROPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin, alpha = chosen - rejected, self.options.alpha
        scale = 4 * alpha / (1 + alpha) ** 2
        return scale * (alpha * torch.sigmoid(-margin) - F.logsigmoid(margin))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="ropo",
    target=f"{__name__}:ROPO",
    options=ROPOOptions,
    summary="ROPO: logistic loss blended with a noise-tolerant sigmoid loss",
    family="bounded losses",
    formula="4α/(1+α)²·(−log σ(βh)) + 4α²/(1+α)²·σ(−βh)",
    paper=Paper(
        title="ROPO: Robust Preference Optimization for Large Language Models",
        arxiv="2404.04102",
        authors=("Liang, Xize", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise"}),
    verified=(
        Verified(against="ROPO as re-implemented in nissymori/SymPO@506e928", test="test_sympo_equals_the_authors"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the closed form of its steepest slope", test="test_the_slope_of_ropo_is_at_most_1"),
        Verified(against="limit α → ∞: 4·σ(−βh), SymPO's sigmoid", test="test_ropo_of_large_alpha_is_symmetric"),
    ),
)
