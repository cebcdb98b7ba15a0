"""The gradient at the current weights: g = ∇L(θ). Ordinary training, and the baseline for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.plugin import GeometryCard, Verified

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class Plain(GeometryController):
    """One pass: the step's gradient, unchanged."""

    def step(self, ctx: StepContext) -> StepLoss:
        return ctx.backward()


CARD = GeometryCard(
    name="plain",
    target=f"{__name__}:Plain",
    summary="No geometry: the gradient at the current weights",
    family="plain gradient",
    formula="g = ∇L(θ)",
    sharded=True,
    verified=(Verified(against="autograd in float64", test="test_plain_gradient_equals_direct_autograd"),),
)
