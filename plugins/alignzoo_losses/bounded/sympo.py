"""SymPO: symmetric losses, whose minimiser random label flips do not move.

    t = clip(β·a, ±c) − clip(β·b, ±c),     a = log π_w − log π_ref,w,     b = log π_l − log π_ref,l

    sigmoid  ℓ = σ(−t)        symmetric ramp  ℓ = clip( ½ − ½·t, 0, 1 )        unhinged  ℓ = 1 − t
    ramp     ℓ = clip( 1 − t, 0, 1 )

Nishimori et al., *On Symmetric Losses for Robust Policy Optimization with Noisy Preferences*, arXiv 2505.24709.
Log-ratios are sums over response tokens, in nats; β is in 1/nats, c in the unit of rewards. The first three are
symmetric, ℓ(t) + ℓ(−t) is constant; the ramp, which the authors compare with, is not. As in the authors' code each
*reward* is clipped, so a response whose log-ratio exceeds c/β nats has no gradient; it also bounds the unhinged loss.
Their functions return the mean of a batch, this one a value per pair, so robust wrappers can weigh pairs.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class SymPOOptions(Options):
    """β, in 1/nats, the shape of the loss, and the bound of a reward."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    shape: Literal["sigmoid", "symmetric-ramp", "unhinged", "ramp"] = Field(
        "sigmoid", description="loss of the margin; all but ramp are symmetric"
    )
    clip: float = Field(10.0, gt=0, description="bound of a reward in absolute value")


class SymPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref), clipped."""

    options: SymPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        match self.options.shape:
            case "sigmoid":
                return torch.sigmoid(-margin)
            case "symmetric-ramp":
                return (0.5 - 0.5 * margin).clamp(0, 1)
            case "unhinged":
                return 1 - margin
            case "ramp":
                return (1 - margin).clamp(0, 1)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        bound = self.options.clip
        chosen, rejected = pairs.log_ratios()
        return (self.options.beta * chosen).clamp(-bound, bound), (self.options.beta * rejected).clamp(-bound, bound)


CARD = Card(
    kind="loss",
    name="sympo",
    target=f"{__name__}:SymPO",
    options=SymPOOptions,
    summary="SymPO: symmetric losses, unaffected by random label flips",
    family="bounded losses",
    formula="σ(−t), clip(½ − ½t, 0, 1), 1 − t or clip(1 − t, 0, 1); t the difference of clipped rewards",
    paper=Paper(
        title="On Symmetric Losses for Robust Policy Optimization with Noisy Preferences",
        arxiv="2505.24709",
        authors=("Nishimori, Soichiro", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the authors' nissymori/SymPO@506e928, all four shapes", test="test_sympo_equals_the_authors"),
        Verified(against="symmetry: ℓ(t) + ℓ(−t) is constant", test="test_sympo_is_symmetric"),
    ),
)
