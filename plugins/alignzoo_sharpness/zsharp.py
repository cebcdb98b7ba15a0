"""Z-Sharp: climb along the gradient's outliers alone.

    z = (g − mean g)/(std g + 10⁻⁸)  in each tensor,     ĝ = g where |z| > Q_q, else 0
    ε = ρ·ĝ/‖ĝ‖,     step with ∇L(θ + ε)

Yun, *Sharpness-Aware Minimization with Z-Score Gradient Filtering*, arXiv 2505.02369. Q_q is the q-quantile of |z|
over all selected weights together. Only the ascent is filtered. Where nothing is above the quantile, ĝ is g.

Q_q is the ⌊q(n−1)⌋+1-th smallest of n numbers, which keeps the elements that the interpolated quantile keeps; above
2²⁴ elements it is taken from that many of them, drawn with the step's generator. The standard deviation is that of the
population (divided by n), so that a tensor of one element has one. At q = 0 the smallest |z| drops out: almost SAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.geometry.ascent import AscentOptions, Moved, WeightMover, ascend, kth_smallest, lengthened
from alignzoo.geometry.perturb import norm, total
from alignzoo.geometry.shards import local
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.train.context import StepContext


class ZSharpOptions(AscentOptions):
    """The shared vocabulary, and a quantile between 0 and 1."""

    quantile: float = Field(0.95, ge=0, lt=1, description="q: the share of the gradient's elements that is left out")


class ZSharp(WeightMover):
    """SAM along the outliers of each tensor's gradient."""

    options: ZSharpOptions

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self._epsilon)

    def _epsilon(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        scores = [_z_score(gradient).abs() for gradient in moved.gradients]
        rank = math.floor(self.options.quantile * (sum(score.numel() for score in scores) - 1)) + 1
        threshold = kth_smallest(scores, rank, ctx.generator("zsharp"))
        outliers = [g * (score > threshold) for g, score in zip(moved.gradients, scores, strict=True)]
        rho, over = self.options.rho, self.options.norm
        return lengthened(outliers, rho, over, moved.axes) or lengthened(moved.gradients, rho, over, moved.axes)


def _z_score(gradient: torch.Tensor) -> torch.Tensor:
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    centred = wide - total([local(wide).sum()], [wide]) / wide.numel()
    return centred / (norm([centred]) / wide.numel() ** 0.5 + 1e-8)


CARD = Card(
    api=1,
    kind="geometry",
    name="zsharp",
    target=f"{__name__}:ZSharp",
    options=ZSharpOptions,
    summary="Z-Sharp: climbs along the outliers of the gradient alone",
    formula="z = (g − mean g)/std g per tensor; ĝ = g where |z| > Q_q; step with ∇L(θ + ρ·ĝ/‖ĝ‖)",
    paper=Paper(title="Sharpness-Aware Minimization with Z-Score Gradient Filtering", arxiv="2505.02369"),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="closed form on a quadratic, torch.quantile", test="test_zsharp_on_a_quadratic"),
        Verified(against="limit q = 0: sam but for one element", test="test_zsharp_at_quantile_0_is_nearly_sam"),
    ),
)
