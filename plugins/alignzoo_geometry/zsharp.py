"""Z-Sharp: ascend only along the gradient's outliers.

    z = (g − mean g)/std g,     ĝ = g where |z| > Q_q(|z|), else 0
    ε = ρ·ĝ/‖ĝ‖,     step with ∇L(θ + ε)

Yun, *Sharpness-Aware Minimization with Z-Score Gradient Filtering*, arXiv 2505.02369. Only the ascent is filtered. Q_q
is the q-quantile of |z|. ``over`` sets the scope of the quantile:

* ``tensor``, as in the authors' code: each tensor with at least two dimensions has its own quantile and moves by ρ, so
  ‖ε‖ is about ρ·√(number of such tensors): ten times SAM's for a model with a hundred. The others (biases, norm gains)
  are not filtered and move as under ``sam``, by their part of ρ·g/‖g‖ with ‖g‖ over all selected weights; so does a
  tensor without outliers.
* ``global``: one quantile of |z| over all selected weights, and ρ is the norm of the whole ε (``norm`` distributes
  it). If nothing is above the quantile, ĝ is g.

Q_q is the ⌊q(n−1)⌋+1-th smallest of n numbers, which keeps the same elements as the interpolated quantile; above 2²⁴
elements it is estimated from that many, drawn with the step's generator. The standard deviation is the population's
(divided by n), so that it exists for a single element; the authors divide by n − 1, which does not change the order
within a tensor. At q = 0 only the smallest |z| is dropped: almost SAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from alignzoo.distributed.shards import local
from alignzoo.geometry.perturb import norm, total
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import Moved, WeightMover, ascend, lengthened
from alignzoo_geometry.draws import kth_smallest
from alignzoo_geometry.vocabulary import AscentOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class ZSharpOptions(AscentOptions):
    """The common SAM options, plus the quantile in [0, 1) and its scope."""

    quantile: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="q: share of the gradient's elements to leave out",
        json_schema_extra={"search": [0.5, 0.99]},
    )
    over: Literal["tensor", "global"] = Field(
        "tensor", description="scope of the quantile and of ρ: each tensor (the authors' code), or all together"
    )

    @model_validator(mode="after")
    def _no_idle_option(self) -> ZSharpOptions:
        if self.over == "tensor" and self.norm != "global":
            raise ValueError(f"norm {self.norm} has no effect with over tensor; set over global")
        return self


class ZSharp(WeightMover):
    """SAM along the outliers of each tensor's gradient."""

    options: ZSharpOptions

    def step(self, ctx: StepContext) -> StepLoss:
        return ascend(ctx, self.options, self._by_tensor if self.options.over == "tensor" else self._global)

    def _by_tensor(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        unfiltered = self.steepest(ctx, moved)
        if unfiltered is None:
            return None
        generator = ctx.generator("zsharp")

        def filtered(gradient: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
            moves = lengthened(self._outliers([gradient], generator), self.options.rho) if gradient.dim() > 1 else None
            return moves[0] if moves else part

        return [filtered(g, part) for g, part in zip(moved.gradients, unfiltered, strict=True)]

    def _global(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        outliers = self._outliers(moved.gradients, ctx.generator("zsharp"))
        rho, over = self.options.rho, self.options.norm
        return lengthened(outliers, rho, over, moved.axes) or lengthened(moved.gradients, rho, over, moved.axes)

    def _outliers(self, gradients: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
        """ĝ, with one quantile for all of these tensors."""
        scores = [_z_score(gradient).abs() for gradient in gradients]
        rank = math.floor(self.options.quantile * (sum(score.numel() for score in scores) - 1)) + 1
        threshold = kth_smallest(scores, rank, generator)
        return [g * (score > threshold) for g, score in zip(gradients, scores, strict=True)]


def _z_score(gradient: torch.Tensor) -> torch.Tensor:
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    centred = wide - total([local(wide).sum()], [wide]) / wide.numel()
    return centred / (norm([centred]) / wide.numel() ** 0.5 + 1e-8)


CARD = GeometryCard(
    api=1,
    name="zsharp",
    target=f"{__name__}:ZSharp",
    options=ZSharpOptions,
    summary="Z-Sharp: ascent along the gradient's outliers only",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="z = (g − mean g)/std g; ĝ = g where |z| > Q_q(|z|); step with ∇L(θ + ρ·ĝ/‖ĝ‖), tensor by tensor",
    paper=Paper(
        title="Sharpness-Aware Minimization with Z-Score Gradient Filtering",
        arxiv="2505.02369",
        authors=("Yun, Juyoung",),
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="the authors' YUNBLAK/Sharpness-Aware-Minimization-with-Z-Score-Gradient-Filtering@52764f8",
            test="test_a_trajectory_equals_the_authors",
        ),
        Verified(against="closed form on a quadratic, torch.quantile", test="test_zsharp_on_a_quadratic"),
        Verified(against="limit q = 0: sam but for one element", test="test_zsharp_at_quantile_0_is_nearly_sam"),
    ),
)
