"""ESAM: perturb some of the weights, and go on with the pairs that mind.

    ε = (ρ/β)·g_S/‖g_S‖,     g_S = ∇_S L(θ),  each tensor in S with probability β
    B⁺: the share γ of the pairs with the largest ℓ_i(θ + ε) − ℓ_i(θ),     step with ∇L_{B⁺}(θ + ε)

Du, Yan, Feng, Zhou, Zhen, Goh, Tan, *Efficient Sharpness-aware Minimization for Improved Training of Neural Networks*,
arXiv 2110.03141: Stochastic Weight Perturbation and Sharpness-sensitive Data Selection. ``keep`` is β, ``share`` is γ.
As in the authors' code, whole tensors are drawn, which spares the gradients of the others, and the length is that over
the drawn ones; the paper draws single weights. ℓ_i is a pair's loss, wrappers' terms per pair included: pairs are kept
or left out, never a response alone. L_{B⁺} is the objective of those pairs as if there were no others, so the wrappers
weigh them among themselves. Micro-batches without such a pair are spared the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alignzoo.geometry.ascent import PerturbationOptions, WeightMover, chosen, lengthened, plain
from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.train.context import StepContext


class ESAMOptions(PerturbationOptions):
    """The shared vocabulary, and the shares (0 to 1) of tensors and of pairs that are kept."""

    keep: float = Field(0.6, gt=0, le=1, description="β: probability with which a tensor is perturbed")
    share: float = Field(0.5, gt=0, le=1, description="γ: share of the pairs that the gradient is taken on")


class ESAM(WeightMover):
    """SAM on a part of the weights and a part of the pairs."""

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
        """S."""
        _, weights = chosen(ctx, self.options.select)
        draws = torch.rand(len(weights), generator=ctx.generator("esam")).tolist()
        return [weight for weight, draw in zip(weights, draws, strict=True) if draw < self.options.keep]

    def _sharpest(self, ctx: StepContext, here: StepLoss) -> StepContext:
        """The step of B⁺, at least one pair; called at θ + ε."""
        there = ctx.evaluate()
        with torch.no_grad():
            per_pair = ctx.engine.objective.per_pair
            rise = per_pair(there.pairs) - per_pair(here.pairs)
        kept = torch.zeros_like(rise, dtype=torch.bool)
        kept[rise.topk(max(1, round(self.options.share * len(rise)))).indices] = True
        ctx.log("sharpness_gap", there.value - here.value)
        ctx.log("kept_rise", rise[kept].mean())
        return ctx.only(kept)


CARD = Card(
    api=1,
    kind="geometry",
    name="esam",
    target=f"{__name__}:ESAM",
    options=ESAMOptions,
    summary="ESAM: perturbs some of the tensors, and goes on with the pairs that mind most",
    formula="ε = (ρ/β)·g_S/‖g_S‖; B⁺: the pairs with the largest ℓ(θ + ε) − ℓ(θ); step with ∇L_{B⁺}(θ + ε)",
    paper=Paper(
        title="Efficient Sharpness-aware Minimization for Improved Training of Neural Networks", arxiv="2110.03141"
    ),
    passes=2,
    sharded=True,
    verified=(
        Verified(against="derivation (the selected pairs alone, tiny llama)", test="test_esam_on_a_llama"),
        Verified(against="limit β = γ = 1: sam", test="test_the_limit_is_sam_to_the_bit"),
    ),
)
