"""Hölder-DPO: a robust divergence in place of the likelihood; a pair that looks mislabelled has no gradient.

    ℓ = γ·p^{1+γ} − (1 + γ)·p^γ,     p = σ(β·h)
    dℓ/d(βh) = −γ·(1 + γ)·p^γ·(1 − p)²

Fujisawa et al., *Scalable Valuation of Human Feedback through Provably Robust Model Alignment*, arXiv 2505.17859.
h is the difference of log-ratios of response sums, in nats; β is in 1/nats. The gradient vanishes at both ends
(redescending), so pairs that the policy ranks wrongly by a wide margin stop counting, and a small p marks a likely
mislabel. Values lie in (−1, 0): a wrapper that weighs pairs by exponentials of their loss sees a narrow range.

The formula follows a secondary text; its gradient agrees with the published one.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class HolderDPOOptions(Options):
    """β, in 1/nats, and the exponent."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    gamma: float = Field(2.0, gt=0, description="robustness: how soon a wrongly ranked pair stops counting")


class HolderDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: HolderDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        gamma, logp = self.options.gamma, F.logsigmoid(chosen - rejected)
        return gamma * torch.exp((1 + gamma) * logp) - (1 + gamma) * torch.exp(gamma * logp)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="holder-dpo",
    target=f"{__name__}:HolderDPO",
    options=HolderDPOOptions,
    summary="Hölder-DPO: redescending loss that drops likely mislabelled pairs",
    family="bounded losses",
    formula="γ·p^{1+γ} − (1+γ)·p^γ, p = σ(βh)",
    paper=Paper(
        title="Scalable Valuation of Human Feedback through Provably Robust Model Alignment",
        arxiv="2505.17859",
        authors=("Fujisawa, Masahiro", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"label-noise"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the closed form of its gradient", test="test_the_gradient_of_holder_dpo_redescends"),
    ),
)
