"""ESAM: perturb a random subset of tensors, and take the gradient on the pairs whose loss rises most.

    ε = (ρ/β)·g_S/‖g_S‖,     g_S = ∇_S L(θ),  each tensor in S with probability β
    B⁺: the pairs i whose rise ℓ_i(θ + ε) − ℓ_i(θ) is above the ⌊γN⌋-th largest,     step with ∇L_{B⁺}(θ + ε)

Du, Yan, Feng, Zhou, Zhen, Goh, Tan, *Efficient Sharpness-aware Minimization for Improved Training of Neural Networks*,
arXiv 2110.03141: Stochastic Weight Perturbation and Sharpness-sensitive Data Selection. ``keep`` is β, ``share`` is γ.
As in the authors' code, whole tensors are drawn, which saves the gradients of the others, and the norm is over the
drawn tensors; the paper draws single weights. ℓ_i is a pair's loss, including wrappers' per-pair terms: pairs are kept
or dropped as a whole. L_{B⁺} is the objective of those pairs alone, so wrappers weight them among themselves.
Micro-batches without such a pair skip the backward pass.

Also as in the authors' code, B⁺ is what lies *above* the ⌊γN⌋-th largest rise: ⌊γN⌋ − 1 of the N pairs (15 of 32 at γ =
½), fewer if rises are tied, and all of them for γ ≥ 0.99; the paper keeps the share γ. If nothing lies above it (the
authors take the mean of no pairs, NaN), the pair with the largest rise is kept. N counts the whole step over all
ranks; theirs is one rank's batch. Their first step perturbs every tensor; here the first draw precedes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import GeometryCard, Paper, Verified
from alignzoo_geometry.ascent import WeightMover, chosen, lengthened, plain
from alignzoo_geometry.vocabulary import PerturbationOptions

if TYPE_CHECKING:
    from alignzoo.interfaces import StepContext

ALL = 0.99
"""From this share on, the authors keep every pair."""


class ESAMOptions(PerturbationOptions):
    """The common SAM options, plus the shares (0 to 1) of tensors and of pairs to keep."""

    keep: float = Field(
        0.6,
        gt=0,
        le=1,
        description="β: probability with which a tensor is perturbed",
        json_schema_extra={"search": [0.2, 1.0]},
    )
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="γ: share of the pairs to take the gradient on, minus one pair; 1 for all",
        json_schema_extra={"search": [0.2, 1.0]},
    )


class ESAM(WeightMover):
    """SAM on a subset of the weights and a subset of the pairs."""

    options: ESAMOptions

    def step(self, ctx: StepContext) -> StepLoss:
        weights = [] if plain(ctx, self.options) else self._drawn(ctx)
        if not weights:
            return ctx.backward()
        loss, gradients = ctx.gradient(weights)
        rho = self.options.rho / self.options.keep
        epsilon = lengthened(gradients, rho, self.options.norm, ctx.output_axes(weights))
        if epsilon is None:
            return ctx.backward()
        with ctx.perturbed(weights, epsilon):
            if self.options.share < 1:
                self._sharpest(ctx, loss).backward()
            else:
                ctx.backward()
        ctx.log("radius", norm(epsilon))
        ctx.log("ascent_grad_norm", norm(gradients))
        return loss

    def _drawn(self, ctx: StepContext) -> list[torch.nn.Parameter]:
        """The drawn tensors S."""
        _, weights = chosen(ctx, self.options.select)
        draws = torch.rand(len(weights), generator=ctx.generator("esam")).tolist()
        return [weight for weight, draw in zip(weights, draws, strict=True) if draw < self.options.keep]

    def _sharpest(self, ctx: StepContext, here: StepLoss) -> StepContext:
        """The step of B⁺, at least one pair; called at θ + ε."""
        there = ctx.evaluate()
        rise = ctx.by_row(there) - ctx.by_row(here)
        kept = self._kept(rise)
        ctx.log("sharpness_gap", there.value - here.value)
        ctx.log("kept_rise", rise[kept].mean())
        return ctx.only(kept)

    def _kept(self, rise: torch.Tensor) -> torch.Tensor:
        """``(N,)`` bool, the pairs in B⁺, from each pair's rise."""
        if self.options.share >= ALL:
            return torch.ones_like(rise, dtype=torch.bool)
        kept = rise > rise.topk(max(1, int(self.options.share * len(rise)))).values[-1]
        if not kept.any():
            kept[rise.argmax()] = True
        return kept


CARD = GeometryCard(
    api=1,
    name="esam",
    target=f"{__name__}:ESAM",
    options=ESAMOptions,
    summary="ESAM: SAM on random tensors and on the pairs whose loss rises most",
    family="cheaper sharpness-aware steps",
    addresses=frozenset({"distribution-shift"}),
    formula="ε = (ρ/β)·g_S/‖g_S‖; B⁺: the pairs with the largest ℓ(θ + ε) − ℓ(θ); step with ∇L_{B⁺}(θ + ε)",
    paper=Paper(
        title="Efficient Sharpness-aware Minimization for Improved Training of Neural Networks",
        arxiv="2110.03141",
        authors=(
            "Du, Jiawei",
            "Yan, Hanshu",
            "Feng, Jiashi",
            "Zhou, Joey Tianyi",
            "Zhen, Liangli",
            "Goh, Rick Siow Mong",
            "Tan, Vincent Y. F.",
        ),
        venue="ICLR 2022",
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="the authors' dydjw9/Efficient_SAM@1e06840", test="test_esam_equals_the_authors"),
        Verified(against="derivation (the selected pairs alone, tiny llama)", test="test_esam_on_a_llama"),
        Verified(against="limit β = γ = 1: sam", test="test_the_limit_is_sam_to_the_bit"),
    ),
)
