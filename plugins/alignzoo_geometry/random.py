"""A perturbation of norm ρ in a random direction: the control for sharpness-aware steps.

    n ~ N(0, I),     ε = ρ·n/‖n‖,     step with ∇L(θ + ε)

No paper. Each step draws a new direction, the same on all ranks. One forward-backward pass, plus a forward pass at θ,
because a step reports the loss at θ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Verified
from alignzoo_geometry.ascent import WeightMover, chosen, gradient_at, lengthened, plain
from alignzoo_geometry.draws import noise_like
from alignzoo_geometry.vocabulary import PerturbationOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class RandomDirection(WeightMover):
    """The gradient at a random point at distance ρ."""

    options: PerturbationOptions

    def step(self, ctx: StepContext) -> StepLoss:
        if plain(ctx, self.options):
            return ctx.backward()
        _, weights = chosen(ctx, self.options.select)
        noise = noise_like(weights, ctx.generator("random"))
        epsilon = lengthened(noise, self.options.rho, self.options.norm, ctx.output_axes(weights))
        return ctx.backward() if epsilon is None else gradient_at(ctx, weights, epsilon)


CARD = GeometryCard(
    api=1,
    name="random",
    target=f"{__name__}:RandomDirection",
    options=PerturbationOptions,
    summary="Gradient at a random point at distance rho, a control for SAM",
    family="random perturbations",
    formula="ε = ρ·n/‖n‖, n ~ N(0, I); step with ∇L(θ + ε)",
    needs_fp32="a random direction moves each weight far less than the spacing of bf16, so ε rounds away",
    passes=1,
    sharded=True,
    verified=(Verified(against="closed form on a quadratic", test="test_random_on_a_quadratic"),),
)
