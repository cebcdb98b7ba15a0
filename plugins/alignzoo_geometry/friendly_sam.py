"""Friendly SAM: ascend along the batch-specific part of the gradient, not along the full-data gradient.

    d_t = g_t − σ·m_{t−1},     ε = ρ·d_t/‖d_t‖,     step with ∇L(θ + ε),     m_t = λ·m_{t−1} + (1−λ)·g_t,     m_0 = g_0

Li, Zhou, He, Cheng, Huang, *Friendly Sharpness-Aware Minimization*, arXiv 2403.12350, algorithm 1; m stands for the
full-data gradient. As in the authors' code, the first step has d = g, and m averages the gradient itself (a widespread
port feeds d back into m). The average is over perturbed steps, and over the weights that ``select`` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.distributed.shards import beside
from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import Moved, WeightMover, ascend, lengthened
from alignzoo_geometry.vocabulary import PerturbationOptions

if TYPE_CHECKING:
    import torch

    from alignzoo.interfaces import StepContext


class FriendlySAMOptions(PerturbationOptions):
    """The common SAM options, plus σ (dimensionless) and the decay of the mean gradient."""

    sigma: float = Field(
        1.0,
        ge=0,
        description="σ: how much of the average gradient to remove; 0 gives sam",
        json_schema_extra={"search": [0.0, 1.0]},
    )
    lam: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="λ: decay of the average gradient per step",
        json_schema_extra={"search": [0.5, 0.99]},
    )


class FriendlySAM(WeightMover):
    """SAM along the batch-specific part of the gradient."""

    options: FriendlySAMOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mean: list[torch.Tensor] = []  # m

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self._epsilon)

    def _epsilon(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        sigma, lam, gradients = self.options.sigma, self.options.lam, moved.gradients
        if not self._mean:
            self._mean = [g.clone() for g in gradients]
            return lengthened(gradients, self.options.rho, self.options.norm, moved.axes)
        mean = beside(self._mean, gradients)
        direction = [g - sigma * m for g, m in zip(gradients, mean, strict=True)]
        self._mean = [lam * m + (1 - lam) * g for g, m in zip(gradients, mean, strict=True)]
        return lengthened(direction, self.options.rho, self.options.norm, moved.axes)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = state["mean"]


CARD = GeometryCard(
    api=1,
    name="friendly-sam",
    target=f"{__name__}:FriendlySAM",
    options=FriendlySAMOptions,
    summary="Friendly SAM: ascent along the batch-specific part of the gradient",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="d = g − σ·m; ε = ρ·d/‖d‖; step with ∇L(θ + ε); m ← λ·m + (1−λ)·g",
    paper=Paper(
        title="Friendly Sharpness-Aware Minimization",
        arxiv="2403.12350",
        authors=("Li, Tao", "Zhou, Pan", "He, Zhengbao", "Cheng, Xinwen", "Huang, Xiaolin"),
        venue="CVPR 2024",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="the authors' nblt/F-SAM@2e2f989", test="test_a_trajectory_equals_the_authors"),
        Verified(against="closed form on a quadratic", test="test_friendly_sam_on_a_quadratic"),
        Verified(against="limit σ = 0: sam", test="test_the_limit_is_sam_to_the_bit"),
    ),
)
