"""GSAM: the gradient at the worst point, minus a multiple of the component of ∇L(θ) orthogonal to it.

    g = ∇L(θ),     g_p = ∇L(θ + ρ·g/‖g‖),     step with g_p − α·g_⊥,     g_⊥ = g − (⟨g, g_p⟩/‖g_p‖²)·g_p

Zhuang, Gong, Yuan, Cui, Adam, Dvornek, Tatikonda, Duncan, Liu, *Surrogate Gap Minimization Improves Sharpness-Aware
Training*, arXiv 2203.08065, algorithm 1. Descending along −g_⊥ lowers the gap L(θ + ε) − L(θ) and leaves L(θ + ε)
unchanged, to first order. The paper scales ρ with the learning rate; here ρ is constant. Inner products are over all
trainable weights, including those that ``select`` does not perturb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.geometry.perturb import dot
from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, both_gradients, combine, grads
from alignzoo_geometry.vocabulary import ClimbOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class GSAMOptions(ClimbOptions):
    """The common SAM options, plus α (dimensionless)."""

    alpha: float = Field(
        0.4,
        ge=0,
        description="α: how much of the gradient orthogonal to g_p to subtract; 0 gives sam",
        json_schema_extra={"search": [0.0, 1.0]},
    )


class GSAM(WeightMover):
    """SAM that also minimises the surrogate gap L(θ + ε) − L(θ)."""

    options: GSAMOptions

    def step(self, ctx: StepContext) -> StepLoss:
        loss, here = both_gradients(ctx, self.options, self.steepest)
        if here is not None:
            weights = ctx.trainable()
            there = grads(weights)
            square = dot(there, there)
            along = dot(here, there) / square if square > 0 else 0.0
            alpha = self.options.alpha
            combine(weights, 1 + alpha * along, -alpha, here)
        return loss


CARD = GeometryCard(
    api=1,
    name="gsam",
    target=f"{__name__}:GSAM",
    options=GSAMOptions,
    summary="GSAM: SAM that also minimises the surrogate gap",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="g_p = ∇L(θ + ρ·g/‖g‖); step with g_p − α·(g − proj_{g_p} g)",
    paper=Paper(
        title="Surrogate Gap Minimization Improves Sharpness-Aware Training",
        arxiv="2203.08065",
        authors=(
            "Zhuang, Juntang",
            "Gong, Boqing",
            "Yuan, Liangzhe",
            "Cui, Yin",
            "Adam, Hartwig",
            "Dvornek, Nicha",
            "Tatikonda, Sekhar",
            "Duncan, James",
            "Liu, Ting",
        ),
        venue="ICLR 2022",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="the authors' juntang-zhuang/GSAM@a770275", test="test_a_trajectory_equals_the_authors"),
        Verified(against="closed form on a quadratic", test="test_gsam_on_a_quadratic"),
        Verified(against="limit α = 0: sam", test="test_the_limit_is_sam_to_the_bit"),
        Verified(against="derivation (flat vectors, tiny llama)", test="test_gsam_on_a_llama"),
    ),
)
