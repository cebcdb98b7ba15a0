"""GAPO: margins relative to a nearby worst-case point instead of a reference.

    θ̃ = θ + ρ·w²⊙g/‖w⊙g‖,     g = ∇L(θ),     Γ_i = M_i(θ) − sg[M_i(θ̃)],     step with ∇_θ of the loss at Γ

Cho and others, *Learning Where It Matters: Geometric Anchoring for Robust Preference Alignment*, arXiv 2602.04909. M_i
is pair i's margin; the paper's loss is SimPO's, −logσ(βΓ_i − γ): ``--loss simpo --geometry gapo``. Here any loss is
evaluated on log-probs minus those at θ̃, and reference log-probs are 0: the anchor is the reference. A loss that
depends on likelihoods and not only on margins is not meaningful there.

The authors leave the LM head out of θ̃: ``--geometry.select 'model.*'`` on a llama. At ρ = 0 the anchor is θ itself:
the loss is −logσ(−γ) for every pair, with a non-zero gradient that is not the plain one. The step reports L(θ); the
anchored value is logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.geometry.outputs import Axes
from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, chosen, lengthened
from alignzoo_geometry.vocabulary import EVERYTHING, Norm, Rho, Select

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class GAPOOptions(Options):
    """Distance of the anchor, and the weights it moves."""

    rho: Rho = 0.05
    select: Select = EVERYTHING
    norm: Norm = "global"


class GAPO(WeightMover):
    """The loss at log-probs relative to a geometric anchor."""

    options: GAPOOptions

    def step(self, ctx: StepContext) -> StepLoss:
        _, weights = chosen(ctx, self.options.select)
        loss, gradients = ctx.gradient(weights)
        epsilon = self._epsilon(weights, gradients, ctx.output_axes(weights))
        with ctx.perturbed(weights, epsilon):
            anchored = ctx.anchored()
        found = anchored.backward()
        ctx.log("radius", norm(epsilon))
        ctx.log("ascent_grad_norm", norm(gradients))
        ctx.log("anchored_value", found.value)
        return loss

    def _epsilon(
        self, weights: list[torch.nn.Parameter], gradients: list[torch.Tensor], axes: list[Axes]
    ) -> list[torch.Tensor]:
        scaled = [weight.detach() * g for weight, g in zip(weights, gradients, strict=True)]
        direction = lengthened(scaled, self.options.rho, self.options.norm, axes)
        if direction is None:
            return [torch.zeros_like(g) for g in gradients]
        return [weight.detach() * part for weight, part in zip(weights, direction, strict=True)]


CARD = GeometryCard(
    api=1,
    name="gapo",
    target=f"{__name__}:GAPO",
    options=GAPOOptions,
    summary="GAPO: log-probs relative to a nearby worst case, for --loss simpo",
    family="geometry of alignment",
    addresses=frozenset({"label-noise"}),
    formula="θ̃ = θ + ρ·w²⊙g/‖w⊙g‖; Γ = M(θ) − sg[M(θ̃)]; step with ∇ −logσ(βΓ − γ)",
    paper=Paper(
        title="Learning Where It Matters: Geometric Anchoring for Robust Preference Alignment",
        arxiv="2602.04909",
        authors=("Cho, Youngjae", "Kim, Jongsuk", "Kim, Ji-Hoon"),
    ),
    anchors=True,
    passes=2,
    sharded=True,
    verified=(
        Verified(against="derivation (autograd of −logσ(βΓ − γ), tiny llama)", test="test_gapo_with_simpo_on_a_llama"),
        Verified(against="limit ρ = 0: Γ = 0, loss −logσ(−γ)", test="test_gapo_at_radius_0_is_anchored_at_the_weights"),
    ),
    expected_failures={
        "radius-zero": "at ρ = 0 the anchor is the model itself: margins are 0 and all pairs weigh the same, which is "
        "not the plain objective"
    },
)
