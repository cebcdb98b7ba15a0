"""WSAM: sharpness as a separately weighted penalty.

    g = ∇L(θ),     g_p = ∇L(θ + ρ·g/‖g‖),     step with g + γ/(1−γ)·(g_p − g)

Yue, Jiang, Ye, Gao, Liu, Zhang, *Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term*,
arXiv 2305.15817. The gradient, to first order, of L(θ) + γ/(1−γ)·(L(θ + ε) − L(θ)): γ = 0 is plain, ½ is sam. This is
the coupled form, in which the optimizer sees the sum; the paper also has a decoupled one, which keeps the penalty out
of the optimizer's statistics, like decoupled weight decay, and is the default of the authors' code (this is its
``decouple=False``; under plain SGD the two coincide). γ = 0.9 gives the penalty a weight of nine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.interfaces import StepLoss
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, both_gradients, combine
from alignzoo_geometry.vocabulary import ClimbOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class WSAMOptions(ClimbOptions):
    """The common SAM options, plus γ in [0, 1)."""

    gamma: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="γ: sharpness has the weight γ/(1−γ); 0 gives plain, 0.5 gives sam",
        json_schema_extra={"search": [0.2, 0.95]},
    )


class WSAM(WeightMover):
    """The loss plus its weighted sharpness."""

    options: WSAMOptions

    def step(self, ctx: StepContext) -> StepLoss:
        loss, here = both_gradients(ctx, self.options, self.steepest)
        if here is not None:
            weight = self.options.gamma / (1 - self.options.gamma)
            combine(ctx.trainable(), weight, 1 - weight, here)
        return loss


CARD = GeometryCard(
    api=1,
    name="wsam",
    target=f"{__name__}:WSAM",
    options=WSAMOptions,
    summary="WSAM: sharpness as a separately weighted penalty (coupled form)",
    family="sharpness-aware minimisation",
    addresses=frozenset({"distribution-shift"}),
    formula="step with g + γ/(1−γ)·(∇L(θ + ρ·g/‖g‖) − g)",
    paper=Paper(
        title="Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term",
        arxiv="2305.15817",
        authors=("Yue, Yun", "Jiang, Jiadi", "Ye, Zhiling", "Gao, Ning", "Liu, Yongchao", "Zhang, Ke"),
        venue="KDD 2023",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(
            against="the authors' intelligent-machine-learning/atorch@7fb7da8",
            test="test_a_trajectory_equals_the_authors",
        ),
        Verified(against="closed form on a quadratic", test="test_wsam_on_a_quadratic"),
        Verified(against="limits γ = 0: plain, γ = ½: sam", test="test_wsam_lies_between_plain_and_beyond_sam"),
    ),
)
