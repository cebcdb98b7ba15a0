"""Momentum-SAM: perturbation along the momentum, without an extra forward-backward pass.

    ε_t = −ρ·v_{t−1}/‖v_{t−1}‖,     g_t = ∇L(θ + ε_t),     step with g_t,     v_t = μ·v_{t−1} + g_t,     v_0 = 0

Becker, Altrock, Risse, *Momentum-SAM: Sharpness Aware Minimization without Computational Overhead*, arXiv 2401.12033.
v is an average of gradients, so the minus sign looks ahead, where SAM's ε looks back; that is the authors' sign. v is
the controller's own, over the weights that ``select`` names, not the optimizer's, so any optimizer works. The authors
leave the weights at θ + ε between steps; here they are back at θ after every step. The first step is plain.

One forward-backward pass, plus a forward pass at θ, because a step reports the loss at θ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.distributed.shards import beside
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, chosen, gradient_at, grads, lengthened, plain
from alignzoo_geometry.vocabulary import PerturbationOptions, Rho

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext


class MSAMOptions(PerturbationOptions):
    """The common SAM options, plus the decay of the momentum."""

    rho: Rho = 0.3
    momentum: float = Field(
        0.9, ge=0, lt=1, description="μ: decay of the momentum per step", json_schema_extra={"search": [0.5, 0.99]}
    )


class MSAM(WeightMover):
    """The gradient ahead along the momentum."""

    options: MSAMOptions

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._velocity: list[torch.Tensor] = []  # v

    def step(self, ctx: StepContext) -> StepLoss:
        _, weights = chosen(ctx, self.options.select)
        velocity = beside(self._velocity, weights) if self._velocity else [torch.zeros_like(w) for w in weights]
        ahead = None if plain(ctx, self.options) else [-v for v in velocity]
        epsilon = ahead and lengthened(ahead, self.options.rho, self.options.norm, ctx.output_axes(weights))
        loss = ctx.backward() if epsilon is None else gradient_at(ctx, weights, epsilon)
        self._velocity = [self.options.momentum * v + g for v, g in zip(velocity, grads(weights), strict=True)]
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self._velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._velocity = state["velocity"]


CARD = GeometryCard(
    api=1,
    name="msam",
    target=f"{__name__}:MSAM",
    options=MSAMOptions,
    summary="Momentum-SAM: perturbation along the momentum in a single pass",
    family="cheaper sharpness-aware steps",
    addresses=frozenset({"distribution-shift"}),
    formula="g = ∇L(θ − ρ·v/‖v‖); step with g; v ← μ·v + g",
    paper=Paper(
        title="Momentum-SAM: Sharpness Aware Minimization without Computational Overhead",
        arxiv="2401.12033",
        authors=("Becker, Marlon", "Altrock, Frederick", "Risse, Benjamin"),
    ),
    passes=1,
    sharded=True,
    verified=(
        Verified(against="the authors' MarlonBecker/MSAM@780fa4f", test="test_a_trajectory_equals_the_authors"),
        Verified(against="closed form on a quadratic", test="test_msam_on_a_quadratic"),
    ),
)
