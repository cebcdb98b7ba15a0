"""Gradient centralization: every output row of a weight's gradient has mean zero.

    g = ∇L(θ),     g_row ← g_row − mean(g_row)

Yong, Huang, Hua, Zhang, *Gradient Centralization: A New Optimization Technique for Deep Neural Networks*, arXiv
2004.01461. L is the whole step's objective. The mean is over a row's inputs: over all dimensions of a weight but
the first, and over the first for GPT-2's transposed ``Conv1D``. Weights with fewer than two dimensions are left alone.
As the gradient is projected onto a subspace, it never gets longer.

``layers=linear``, the default, are the fully connected layers, to which the paper applies it; ``all`` also takes
embeddings and whatever else has two dimensions, as the authors' optimizers do. Where an embedding is tied to the output
layer it counts as an embedding. With LoRA the two factors are the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from alignzoo.geometry.perturb import norm
from alignzoo.interfaces import GeometryController, StepLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from pydantic import Field

if TYPE_CHECKING:
    from alignzoo.step.context import StepContext


class GradientCentralizationOptions(Options):
    """Which weights."""

    layers: Literal["linear", "all"] = Field(
        "linear", description="fully connected layers only, or every weight of two or more dimensions"
    )


class GradientCentralization(GeometryController):
    """One pass; ``geometry/removed_norm`` is the Euclidean length of what was taken out of the gradient."""

    options: GradientCentralizationOptions

    def step(self, ctx: StepContext) -> StepLoss:
        loss = ctx.backward()
        removed = [
            centralize_(weight.grad, transposed=transposed)
            for weight, transposed in centralized_weights(ctx.engine.model, self.options.layers)
            if weight.grad is not None
        ]
        ctx.log("removed_norm", math.hypot(*removed))
        return loss


def centralize_(gradient: torch.Tensor, *, transposed: bool = False) -> float:
    """Subtract from each row its mean, in place. Means of half precision are taken in float32.

    Args:
        gradient: ``(out, in, ...)``, or ``(in, out)`` if ``transposed``.

    Returns:
        The Euclidean length of what was subtracted.
    """
    inputs = [0] if transposed else list(range(1, gradient.dim()))
    wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    means = gradient.mean(dim=inputs, keepdim=True, dtype=wide)
    gradient.sub_(means)
    return norm([means]) * math.sqrt(gradient.numel() / means.numel())


def centralized_weights(model: torch.nn.Module, layers: str) -> Iterator[tuple[torch.Tensor, bool]]:
    """The trainable weights that are meant, each once, with whether they are stored as ``(in, out)``."""
    modules = list(model.modules())
    seen = {id(module.weight) for module in modules if layers == "linear" and isinstance(module, torch.nn.Embedding)}
    for module in modules:
        transposed = type(module).__name__ == "Conv1D"
        for weight in module.parameters(recurse=False):
            if id(weight) in seen or weight.dim() < 2 or not weight.requires_grad:
                continue
            if layers == "all" or transposed or isinstance(module, torch.nn.Linear):
                seen.add(id(weight))
                yield weight, transposed


CARD = Card(
    api=1,
    kind="geometry",
    name="gradient-centralization",
    target="alignzoo_example.gradient_centralization:GradientCentralization",
    options=GradientCentralizationOptions,
    summary="Gradient centralization: every output row of a weight's gradient has mean zero",
    formula="g = ∇L(θ); g_row − mean(g_row) for every output row of a weight",
    paper=Paper(
        title="Gradient Centralization: A New Optimization Technique for Deep Neural Networks", arxiv="2004.01461"
    ),
    verified=(
        Verified(against="the paper's projection matrix I − eeᵀ", test="test_it_is_the_papers_projection"),
        Verified(against="a centralized weight", test="test_it_is_the_gradient_of_a_centralized_weight"),
    ),
)
