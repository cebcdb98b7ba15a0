"""Adaptive SAM: a ball scaled by the weights, so that sharpness is invariant to rescaling a layer.

    ε = ρ·T²g/‖Tg‖,     g = ∇L(θ),     T = |w| + η,     step with ∇L(θ + ε);     ‖T⁻¹ε‖ = ρ

Kwon, Kim, Park, Choi, *ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
Networks*, arXiv 2102.11600, eq. 8. T is diagonal: |w| + η for the elements of tensors with two dimensions or more, and
1 for the rest (biases, norm gains). The authors' code matches names with "weight" in them, which would scale norm
gains as well. ρ is the norm of T⁻¹ε, not of ε: use about ten times SAM's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import Moved, WeightMover, ascend, lengthened
from alignzoo_geometry.vocabulary import AscentOptions, Rho

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class ASAMOptions(AscentOptions):
    """The shared vocabulary, and η in the weights' unit."""

    rho: Rho = 0.5
    eta: float = Field(0.01, ge=0, description="η, added to |w| in T")


class ASAM(WeightMover):
    """SAM in coordinates scaled by the weights."""

    options: ASAMOptions

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self._epsilon)

    def _epsilon(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        scales = [self._scale(weight.detach()) for weight in moved.weights]
        scaled = [scale * gradient for scale, gradient in zip(scales, moved.gradients, strict=True)]
        direction = lengthened(scaled, self.options.rho, self.options.norm, moved.axes)
        return direction and [scale * part for scale, part in zip(scales, direction, strict=True)]

    def _scale(self, weight: torch.Tensor) -> torch.Tensor:
        """T of a weight, in its shape."""
        return weight.abs() + self.options.eta if weight.dim() >= 2 else torch.ones_like(weight)


CARD = GeometryCard(
    api=1,
    name="asam",
    target=f"{__name__}:ASAM",
    options=ASAMOptions,
    summary="Adaptive SAM: SAM in a ball scaled by the weights",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="ε = ρ·T²g/‖Tg‖, T = |w| + η; step with ∇L(θ + ε)",
    paper=Paper(
        title="ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks",
        arxiv="2102.11600",
        authors=("Kwon, Jungmin", "Kim, Jeongseop", "Park, Hyunseo", "Choi, In Kwon"),
        venue="ICML 2021",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="the authors' SamsungLabs/ASAM@f156a68", test="test_a_trajectory_equals_the_authors"),
        Verified(against="closed form on a quadratic", test="test_asam_on_a_quadratic"),
        Verified(against="derivation (flat vectors, tiny llama)", test="test_asam_on_a_llama"),
        Verified(against="invariance under rescaling (paper, theorem 3)", test="test_asam_does_not_see_a_rescaling"),
    ),
)
