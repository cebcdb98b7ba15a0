"""Random weight perturbation, mixed with the plain gradient.

    n_i ~ N(0, (γ·‖w_i‖)²)  for each output i,     step with α·∇L(θ + n) + (1−α)·∇L(θ)

Li, Tao, Yan, Lei, Wu, Fang, He, Huang, *Revisiting Random Weight Perturbation for Efficiently Improving
Generalization*, arXiv 2404.00357 (m-RWP). w_i are the weights of an output (a row of a linear map, a column in GPT-2's
Conv1D); a 1-d tensor is one output's. γ is relative to their norm, so d weights move by about γ·√d of it.

The authors take the two gradients on two halves of the batch, to run them in parallel. Here both see the whole step:
the mixture is then the gradient of one objective, and does not depend on how the step is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.distributed.shards import like, local
from alignzoo.geometry.outputs import squares_by_output
from alignzoo.geometry.perturb import cosine
from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import Moved, WeightMover, combine, grads, visit
from alignzoo_geometry.draws import noise_like
from alignzoo_geometry.vocabulary import EVERYTHING, Interval, Select

if TYPE_CHECKING:
    import torch

    from alignzoo.interfaces import StepContext


class RWPOptions(Options):
    """γ relative to the norm of an output's weights, α in [0, 1], schedule and weights."""

    gamma: float = Field(
        0.01, ge=0, description="γ: standard deviation of the noise relative to the norm of an output's weights"
    )
    alpha: float = Field(0.5, ge=0, le=1, description="α: weight of the gradient under noise")
    interval: Interval = 1
    select: Select = EVERYTHING


class RWP(WeightMover):
    """A mixture of the loss and the expected loss under noise."""

    options: RWPOptions

    def step(self, ctx: StepContext) -> StepLoss:
        alpha = self.options.alpha
        if alpha == 0 or self.options.gamma == 0 or (ctx.step + 1) % self.options.interval:
            return ctx.backward()
        weights = ctx.trainable()
        loss, here = visit(ctx, self.options.select, self._noise, keep=weights)
        ctx.log("gradient_cosine", cosine(here, grads(weights)))
        combine(weights, alpha, 1 - alpha, here)
        return loss

    def _noise(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor]:
        noise = noise_like(moved.weights, ctx.generator("rwp"))
        scales = [self.options.gamma * square.sqrt() for square in squares_by_output(moved.weights, moved.axes)]
        return [like(scale.to(n.dtype) * local(n), n) for scale, n in zip(scales, noise, strict=True)]


CARD = GeometryCard(
    api=1,
    name="rwp",
    target=f"{__name__}:RWP",
    options=RWPOptions,
    summary="RWP: gradient under random weight noise, mixed with the plain gradient",
    family="random perturbations",
    addresses=frozenset({"distribution-shift"}),
    formula="n_i ~ N(0, (γ‖w_i‖)²) per output i; step with α·∇L(θ + n) + (1−α)·∇L(θ)",
    paper=Paper(
        title="Revisiting Random Weight Perturbation for Efficiently Improving Generalization",
        arxiv="2404.00357",
        authors=(
            "Li, Tao",
            "Tao, Qinghua",
            "Yan, Weihao",
            "Lei, Zehao",
            "Wu, Yingwen",
            "Fang, Kun",
            "He, Mingzhen",
            "Huang, Xiaolin",
        ),
        venue="TMLR 2024",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="the authors' nblt/RWP@cb0acb0", test="test_rwp_equals_the_authors"),
        Verified(against="closed form on a quadratic", test="test_rwp_on_a_quadratic"),
        Verified(against="its definition: standard deviation per output", test="test_rwp_noise_follows_the_rows"),
    ),
)
