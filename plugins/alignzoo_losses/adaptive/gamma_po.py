"""γ-PO: target margins that add up to a given one and go to the pairs with the larger margins.

    ℓ = −log σ( r − γ_i ),            r = β·( log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l| )     (SimPO form)
    ℓ = −log σ( r − (γ_i − γ₀) ),     r = β·h,  h the difference of log-ratios              (DPO form)
    γ_i = γ₀·N·p_i,     p = argmin over the simplex of  mean softplus(γ₀·N·p_i − r_i) + τ·KL(p ‖ uniform)

Sun et al., *Robust Preference Optimization via Dynamic Target Margins*, arXiv 2506.03690. N is the number of pairs of
the optimizer step, over all ranks. Log-probs are averages over response tokens in the SimPO form, sums in the DPO form,
in nats; β is in the inverse unit. Pairs that the policy is sure of have to clear a larger margin, ambiguous ones a
smaller one. τ → ∞ is SimPO, or DPO. No gradient flows through γ. The defaults are the authors' for Llama 3. In the DPO
form the authors' γ₀ = 0.04 and τ = 10 shift margins by some 10⁻⁵, which is DPO; γ₀ = 1 and τ = 0.5 shift them by a
tenth.

Deviations: the minimiser is exact, found by bisection (the authors take 20 mirror-descent steps, which agree at their
settings), and over the step's own pairs only (theirs adds random draws from a queue of past ones, which would differ
between the two passes of a geometry controller).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from alignzoo.contract.needs import Need
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified

ROUNDS, PARTS, HALVINGS = 9, 32, 48
"""Of the search: each round cuts the interval of the multiplier into so many parts."""


class GammaPOOptions(Options):
    """β; γ₀/β, in the unit of the form's log-probs; τ."""

    form: Literal["simpo", "dpo"] = Field(
        "simpo", description="margins of average log-probs, or of log-ratios", json_schema_extra={"search": []}
    )
    beta: float = Field(10.0, gt=0, description="scale of the margins")
    gamma_beta_ratio: float = Field(
        0.4,
        gt=0,
        description="mean target reward margin γ₀ as a multiple of beta",
        json_schema_extra={"search": [0.1, 2.0]},
    )
    tau: float = Field(10.0, gt=0, description="strength of the pull towards equal target margins")

    def needs(self) -> frozenset[Need]:
        return frozenset({"reference"}) if self.form == "dpo" else frozenset()

    def under(self) -> frozenset[str]:
        return frozenset({"mean"}) if self.form == "simpo" else frozenset()  # β saturates on sums


class GammaPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β times average log-probs, or log-ratios."""

    options: GammaPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        margins = self._margins(pairs)
        target = self.targets(margins)
        if self.options.form == "dpo":
            target = target - self._mean_target
        return -F.logsigmoid(margins - target)

    def targets(self, margins: torch.Tensor) -> torch.Tensor:
        """γ ``(B,)`` of these margins, detached; their mean is γ₀."""
        exact = margins.detach().double()
        return (self._mean_target * shares(exact, self._mean_target, self.options.tau)).to(margins.dtype)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios() if self.options.form == "dpo" else pairs.per_token()
        return self.options.beta * chosen, self.options.beta * rejected

    def metrics(self, pairs: PairBatch) -> dict[str, torch.Tensor]:
        """The least and the largest target margin; where they agree, τ is too large to matter."""
        targets = self.targets(self._margins(pairs))
        return {"margin_min": targets.min(), "margin_max": targets.max()}

    def _margins(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return chosen - rejected

    @property
    def _mean_target(self) -> float:
        """γ₀."""
        return self.options.beta * self.options.gamma_beta_ratio


def shares(margins: torch.Tensor, gamma: float, tau: float) -> torch.Tensor:
    """q = N·p ``(B,)``, with mean 1, where p minimises mean softplus(γ·q − r) + τ·KL(p ‖ uniform).

    At the minimum γ·σ(γ·q_i − r_i) + τ·log q_i is the same number λ for all pairs, and both sides of that equation and
    the mean of q grow: λ lies in [0, γ], and log q in [(λ − γ)/τ, λ/τ].
    """
    low, high = margins.new_zeros(()), margins.new_full((), gamma)
    grid = torch.linspace(0, 1, PARTS + 1, dtype=margins.dtype, device=margins.device)
    for _ in range(ROUNDS):
        multipliers = low + (high - low) * grid
        means = (_log_shares(margins, multipliers[:, None], gamma, tau).logsumexp(1) - math.log(len(margins))).exp()
        part = ((means < 1).sum() - 1).clamp(0, PARTS - 1)
        low, high = multipliers[part], multipliers[part + 1]
    found = _log_shares(margins, (low + high) / 2, gamma, tau)
    return found.softmax(0) * len(margins)


def _log_shares(margins: torch.Tensor, multiplier: torch.Tensor, gamma: float, tau: float) -> torch.Tensor:
    """log q with γ·σ(γ·q − r) + τ·log q = multiplier, by bisection; shapes broadcast."""
    low = ((multiplier - gamma) / tau).expand(torch.broadcast_shapes(multiplier.shape, margins.shape))
    width = gamma / tau
    for _ in range(HALVINGS):
        width = width / 2
        middle = low + width
        below = gamma * torch.sigmoid(gamma * middle.exp() - margins) + tau * middle < multiplier
        low = torch.where(below, middle, low)
    return low + width / 2


CARD = Card(
    kind="loss",
    name="gamma-po",
    target=f"{__name__}:GammaPO",
    options=GammaPOOptions,
    summary="Gamma-PO: target margins shared out among the pairs of the step",
    family="adaptive losses",
    formula="−log σ(r − γ₀·N·p_i), p = argmin mean softplus(γ₀·N·p_i − r_i) + τ·KL(p ‖ uniform)",
    paper=Paper(
        title="Robust Preference Optimization via Dynamic Target Margins",
        arxiv="2506.03690",
        authors=(
            "Sun, Jie",
            "Wu, Junkang",
            "Wu, Jiancan",
            "Zhu, Zhibo",
            "Lu, Xingyu",
            "Zhou, Jun",
            "Ma, Lintao",
            "Wang, Xiang",
        ),
    ),
    addresses=frozenset({"label-noise"}),
    batch_coupled=True,
    aliases=("gammapo",),
    expected_failures={
        "gradcheck": "target margins move with the margins of all pairs, and by definition pass no gradient"
    },
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="the optimality conditions of its inner problem", test="test_gamma_po_solves_its_problem"),
        Verified(against="simpo and dpo where τ → ∞", test="test_gamma_po_limits"),
    ),
)
