"""What sharpness-aware controllers share: the weights they move, how far, when, and the passes at θ and at θ + ε.

A controller's file then holds its mathematics alone: the direction it moves in, and what it makes of the two gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from alignzoo.errors import UsageError
from alignzoo.geometry.perturb import norm, perturbed, wide
from alignzoo.lazy import torch
from alignzoo.plugin.card import Options

if TYPE_CHECKING:
    from alignzoo.interfaces import StepLoss
    from alignzoo.train.context import StepContext

Over = Literal["global", "layer", "neuron"]
EVERYTHING = "all"
EXACT_UP_TO = 2**24
"""Numbers of which :func:`kth_smallest` takes the exact order statistic; of more, that of a sample of so many."""

# One vocabulary for how far, when and which weights; ρ is a Euclidean length in the weights' unit.
Rho = Annotated[float, Field(ge=0, description="length of the perturbation")]
Interval = Annotated[int, Field(ge=1, description="perturb every so many optimizer steps")]
Select = Annotated[
    str,
    Field(
        description="which trainable weights move: all, or patterns of their names, comma-separated (*.mlp.*)",
        examples=["*.mlp.*"],
    ),
]
Norm = Annotated[
    Over, Field(description="what shares the length: all weights, each tensor alike, or each output row alike")
]
Scope = Annotated[
    Literal["step", "microbatch"],
    Field(description="what the ascent sees: the whole step, or each micro-batch alone"),
]


class PerturbationOptions(Options):
    """How far, when, which weights, and what shares the length."""

    rho: Rho = 0.05
    interval: Interval = 1
    select: Select = EVERYTHING
    norm: Norm = "global"


class AscentOptions(PerturbationOptions):
    """The same, with what the ascent sees."""

    scope: Scope = "step"


@dataclass(frozen=True)
class Moved:
    """The weights that a controller moves in a step, with the step's gradient there.

    Attributes:
        names: of the parameters, as the model calls them.
        weights, gradients: tensors of the same shapes; a gradient is the whole step's, over all ranks.
    """

    names: Sequence[str]
    weights: Sequence[torch.Tensor]
    gradients: Sequence[torch.Tensor]


Delta = Callable[["StepContext", Moved], "Sequence[torch.Tensor] | None"]
"""From the gradient at θ to ε, tensor by tensor; None where there is nowhere to go."""


def plain(ctx: StepContext, options: PerturbationOptions) -> bool:
    """Whether this step is not perturbed: ρ is 0, or it is not the last of an interval."""
    return options.rho == 0 or (ctx.step + 1) % options.interval != 0


def chosen(ctx: StepContext, select: str) -> tuple[list[str], list[torch.nn.Parameter]]:
    """Names and weights of the trainable parameters that ``select`` names, in the model's order.

    Raises:
        UsageError: a pattern names none of them.
    """
    named = ctx.named_trainable()
    if select == EVERYTHING:
        return list(named), list(named.values())
    patterns = [pattern.strip() for pattern in select.split(",")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UsageError(
                f"--geometry.select: no trainable weight is called {pattern!r}",
                hint=f"one is called {next(iter(named), 'nothing: all are frozen')}; * stands for any text",
            )
    kept = {name: weight for name, weight in named.items() if any(fnmatchcase(name, p) for p in patterns)}
    return list(kept), list(kept.values())


def ascend(ctx: StepContext, options: PerturbationOptions, delta: Delta) -> StepLoss:
    """The step of SAM and its kin: the gradient at θ, ε from it, and the gradient at θ + ε left in ``.grad``.

    With ``rho`` 0, outside the interval, or where ``delta`` finds nowhere to go, it is the plain step.
    """
    if plain(ctx, options):
        return ctx.backward()
    if isinstance(options, AscentOptions) and options.scope == "microbatch":
        return _ascend_in_parts(ctx, options, delta)
    _, weights = chosen(ctx, options.select)
    loss, gradients = visit(ctx, options.select, delta, keep=weights)
    ctx.log("gradient_cosine", cosine(gradients, grads(weights)))
    return loss


def both_gradients(
    ctx: StepContext, options: PerturbationOptions, delta: Delta
) -> tuple[StepLoss, list[torch.Tensor] | None]:
    """As :func:`ascend` for a whole step, with the gradient at θ of all trainable weights; None in a plain step.

    The weights' ``.grad`` hold the gradient at θ + ε (at θ where nothing moved); :func:`combine` joins the two there.
    """
    if plain(ctx, options):
        return ctx.backward(), None
    weights = ctx.trainable()
    loss, gradients = visit(ctx, options.select, delta, keep=weights)
    ctx.log("gradient_cosine", cosine(gradients, grads(weights)))
    return loss, gradients


def visit(
    ctx: StepContext, select: str, delta: Delta, *, keep: Sequence[torch.Tensor]
) -> tuple[StepLoss, list[torch.Tensor]]:
    """The report and the gradient of ``keep`` at θ; the gradient at θ + ε is added to ``.grad``.

    Args:
        keep: trainable weights, those that ``select`` names among them.
    """
    names, weights = chosen(ctx, select)
    loss, gradients = ctx.gradient(keep)
    by_id = {id(weight): gradient for weight, gradient in zip(keep, gradients, strict=True)}
    moved = Moved(names, weights, [by_id[id(weight)] for weight in weights])
    epsilon = delta(ctx, moved)
    ctx.log("ascent_grad_norm", norm(moved.gradients))
    if epsilon is None:
        ctx.backward()
        return loss, gradients
    with perturbed(weights, epsilon):
        there = ctx.backward()
    _log_move(ctx, epsilon, loss, there)
    return loss, gradients


def gradient_at(ctx: StepContext, weights: Sequence[torch.Tensor], epsilon: Sequence[torch.Tensor]) -> StepLoss:
    """The report at θ, from a forward pass alone; the gradient at θ + ε is added to ``.grad``."""
    loss = ctx.evaluate()
    with perturbed(weights, epsilon):
        there = ctx.backward()
    _log_move(ctx, epsilon, loss, there)
    return loss


def combine(weights: Sequence[torch.nn.Parameter], there: float, here: float, other: Sequence[torch.Tensor]) -> None:
    """``.grad`` ← ``there``·``.grad`` + ``here``·``other``, in place, of the weights that have one."""
    with torch.no_grad():
        for weight, tensor in zip(weights, other, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(there).add_(tensor.to(weight.grad), alpha=here)


def grads(weights: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    """The weights' ``.grad``, zeros for those without."""
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]


def lengthened(direction: Sequence[torch.Tensor], rho: float, over: Over = "global") -> list[torch.Tensor] | None:
    """The direction with length ρ over all tensors together; None if it has no length.

    ``layer`` and ``neuron`` give every tensor, or every output row of it, the same share of ρ²; those without a
    direction get none, and the others share what is left.
    """
    if over == "global":
        length = norm(direction)
        return [rho / length * part for part in direction] if length > 0 else None
    rows = [part.reshape(1, -1) if over == "layer" or part.dim() < 2 else part.flatten(1) for part in direction]
    lengths = [wide(row).norm(dim=1, keepdim=True) for row in rows]
    count = sum(int((length > 0).sum()) for length in lengths)
    if count == 0:
        return None
    each = rho / count**0.5
    scaled = [
        row * torch.where(length > 0, each / length, torch.zeros_like(length)).to(row.dtype)
        for row, length in zip(rows, lengths, strict=True)
    ]
    return [part.reshape(like.shape) for part, like in zip(scaled, direction, strict=True)]


def noise_like(weights: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Independent standard normal numbers in the weights' shapes, dtypes and places."""
    return [torch.randn(weight.shape, generator=generator).to(weight) for weight in weights]


def kth_smallest(parts: Sequence[torch.Tensor], k: int, generator: torch.Generator) -> torch.Tensor:
    """The k-th smallest (from 1) of all numbers in ``parts``, ``()``.

    Of more than :data:`EXACT_UP_TO` numbers, the same quantile of that many drawn from them with replacement.
    """
    count = sum(part.numel() for part in parts)
    if count <= EXACT_UP_TO:
        return torch.cat([part.flatten() for part in parts]).kthvalue(k).values
    sample = []
    for part in filter(torch.Tensor.numel, parts):
        draws = math.ceil(EXACT_UP_TO * part.numel() / count)
        index = torch.randint(part.numel(), (draws,), generator=generator)
        sample.append(part.flatten()[index.to(part.device)])
    drawn = torch.cat(sample)
    return drawn.kthvalue(max(1, round(k / count * len(drawn)))).values


def beside(kept: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """State on the tensors' devices: a checkpoint gives it back on the CPU."""
    return [value.to(tensor.device) for value, tensor in zip(kept, tensors, strict=True)]


def dot(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The inner product over all tensors together, summed in float64."""
    return sum(float((wide(a) * wide(b)).sum()) for a, b in zip(one, other, strict=True))


def cosine(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Cosine between two lists of tensors of the same shapes; 0 where one has no length."""
    lengths = norm(one) * norm(other)
    return dot(one, other) / lengths if lengths > 0 else 0.0


def _ascend_in_parts(ctx: StepContext, options: PerturbationOptions, delta: Delta) -> StepLoss:
    """One ascent per micro-batch; what they log is averaged."""
    losses: list[StepLoss] = []
    logged: dict[str, list[float]] = {}
    _, weights = chosen(ctx, options.select)
    for part in ctx.parts():
        losses.append(visit(part, options.select, delta, keep=weights)[0])
        for name, value in part.metrics.items():
            logged.setdefault(name.removeprefix("geometry/"), []).append(value)
    for name, values in logged.items():
        ctx.log(name, sum(values) / len(values))
    return ctx.join(losses)


def _log_move(ctx: StepContext, epsilon: Sequence[torch.Tensor], here: StepLoss, there: StepLoss) -> None:
    ctx.log("radius", norm(epsilon))
    ctx.log("sharpness_gap", float(there.value - here.value))
