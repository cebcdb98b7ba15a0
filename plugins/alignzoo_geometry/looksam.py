"""LookSAM: SAM every k-th step, reusing the orthogonal part of its gradient in between.

    every k-th step:   g_s = ∇L(θ + ρ·g/‖g‖),     keep g_v = g_s − (⟨g_s, g⟩/‖g‖²)·g,     step with g_s
    otherwise:         step with g + α·(‖g‖/‖g_v‖)·g_v

Liu, Mai, Chen, Hsieh, You, *Towards Efficient and Scalable Sharpness-Aware Minimization*, arXiv 2203.02714, algorithm
1. All norms and inner products are global, over all trainable weights. The first step of a run is a SAM step. The
authors' repository contains no code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.distributed.shards import beside
from alignzoo.geometry.perturb import cosine, dot, norm
from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, combine, grads, visit, with_radius
from alignzoo_geometry.vocabulary import EVERYTHING, GapOptions, Norm, Select

if TYPE_CHECKING:
    import torch

    from alignzoo.interfaces import StepContext


class LookSAMOptions(GapOptions):
    """Radius, interval in optimizer steps, weights, and α (dimensionless)."""

    every: int = Field(5, ge=1, description="k: optimizer steps between SAM steps; 1 gives sam")
    alpha: float = Field(0.7, ge=0, description="α: scale of the reused g_v", json_schema_extra={"search": [0.2, 1.2]})
    select: Select = EVERYTHING
    norm: Norm = "global"


class LookSAM(WeightMover):
    """SAM every k-th step, with a reused gradient component in between."""

    options: LookSAMOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._across: list[torch.Tensor] = []  # g_v

    def step(self, ctx: StepContext) -> StepLoss:
        if self.options.rho == 0:
            return ctx.backward()
        if ctx.step % self.options.every == 0 or not self._across:
            return self._look(ctx)
        return self._reuse(ctx)

    def _look(self, ctx: StepContext) -> StepLoss:
        weights = ctx.trainable()
        loss, here = visit(ctx, self.options.select, with_radius(self.options, self.steepest), keep=weights)
        there = grads(weights)
        square = dot(here, here)
        along = dot(there, here) / square if square > 0 else 0.0
        self._across = [g_s - along * g for g_s, g in zip(there, here, strict=True)]
        ctx.log("gradient_cosine", cosine(here, there))
        return loss

    def _reuse(self, ctx: StepContext) -> StepLoss:
        loss, weights = ctx.backward(), ctx.trainable()
        self._across = across = beside(self._across, weights)
        length = norm(across)
        ctx.log("reused_norm", length)
        if length > 0:
            combine(weights, 1.0, self.options.alpha * norm(grads(weights)) / length, across)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"across": self._across}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._across = state["across"]


CARD = GeometryCard(
    api=1,
    name="looksam",
    target=f"{__name__}:LookSAM",
    options=LookSAMOptions,
    summary="LookSAM: SAM every k-th step, its gradient reused in between",
    family="cheaper sharpness-aware steps",
    addresses=frozenset({"distribution-shift"}),
    formula="g_v = g_s − proj_g g_s every k-th step; otherwise step with g + α·(‖g‖/‖g_v‖)·g_v",
    paper=Paper(
        title="Towards Efficient and Scalable Sharpness-Aware Minimization",
        arxiv="2203.02714",
        authors=("Liu, Yong", "Mai, Siqi", "Chen, Xiangning", "Hsieh, Cho-Jui", "You, Yang"),
        venue="CVPR 2022",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="MarlonBecker/MSAM@780fa4f, a port (the authors released no code)",
            test="test_a_trajectory_equals_the_authors",
        ),
        Verified(against="closed form on a quadratic", test="test_looksam_on_a_quadratic"),
        Verified(against="limit every = 1: sam", test="test_the_limit_is_sam_to_the_bit"),
    ),
)
