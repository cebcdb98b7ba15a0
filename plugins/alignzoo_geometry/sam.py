"""Sharpness-Aware Minimization.

    ε = ρ·g/‖g‖,     g = ∇L(θ),     step with ∇L(θ + ε)

Foret, Kleiner, Mobahi, Neyshabur, *Sharpness-Aware Minimization for Efficiently Improving Generalization*, arXiv
2010.01412, eq. 2-3. L is the whole step's objective over all micro-batches and ranks; the authors' m-sharpness, one
ascent per shard of the batch, is ``scope microbatch``. ‖·‖ is Euclidean over all selected weights (``norm
global``); with ``layer`` every tensor moves equally far, with ``neuron`` every output, and ‖ε‖ is still ρ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, ascend
from alignzoo_geometry.vocabulary import AscentOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class SAM(WeightMover):
    """The gradient at the worst point within ρ, to first order."""

    options: AscentOptions

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self.steepest)


CARD = GeometryCard(
    api=1,
    name="sam",
    target=f"{__name__}:SAM",
    options=AscentOptions,
    summary="SAM: gradient at the first-order worst point within radius rho",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="ε = ρ·g/‖g‖; step with ∇L(θ + ε)",
    paper=Paper(
        title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
        arxiv="2010.01412",
        authors=("Foret, Pierre", "Kleiner, Ariel", "Mobahi, Hossein", "Neyshabur, Behnam"),
        venue="ICLR 2021",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="davda54/sam@3c3afdb (the authors' own code is JAX)", test="test_a_trajectory_equals_the_authors"
        ),
        Verified(against="closed form on a quadratic", test="test_sam_on_a_quadratic"),
    ),
)
