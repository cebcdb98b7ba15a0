"""What sharpness-aware controllers share: which weights to perturb, how far, when, and the passes at θ and θ + ε.

A controller's file then contains only its mathematics: the direction of ε, and how the two gradients are combined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from alignzoo.contract.card import Options
from alignzoo.contract.geometry import GeometryController
from alignzoo.distributed.shards import like, local, sums
from alignzoo.errors import UsageError
from alignzoo.geometry.outputs import Axes, squares_by_output
from alignzoo.geometry.perturb import Scaled, cosine, dot, norm
from alignzoo.lazy import torch
from alignzoo_geometry.vocabulary import (
    EVERYTHING,
    AscentOptions,
    GapOptions,
    Over,
    PerturbationOptions,
)

if TYPE_CHECKING:
    from alignzoo.contract.geometry import StepLoss
    from alignzoo.contract.step import SetupContext, StepContext


@dataclass(frozen=True)
class Moved:
    """The weights that a controller perturbs in a step, with the step's gradient there.

    Attributes:
        names: parameter names.
        weights, gradients: tensors of the same shapes; a gradient is the whole step's, over all ranks.
        value: of the objective at θ.
        axes: the dimensions of each weight that index its module's outputs.
    """

    names: Sequence[str]
    weights: Sequence[torch.Tensor]
    gradients: Sequence[torch.Tensor]
    value: float
    axes: Sequence[Axes]


Delta = Callable[["StepContext", Moved], "Sequence[torch.Tensor] | None"]
"""From the gradient at θ to ε, tensor by tensor; None if there is no direction."""


def plain(ctx: StepContext, options: PerturbationOptions) -> bool:
    """Whether this step is unperturbed: ρ is 0, or it is not the last of an interval."""
    return options.rho == 0 or (ctx.step + 1) % options.interval != 0


class WeightMover(GeometryController):
    """A controller that perturbs the trainable weights named by its option ``select``."""

    def setup(self, run: SetupContext) -> None:
        """Check that there are such weights.

        Raises:
            UsageError: a pattern matches none of them.
        """
        named_by({n: w for n, w in run.model.named_parameters() if w.requires_grad}, self.options.select)
        warn_if_never(run, getattr(self.options, "interval", 1))

    def steepest(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        """ε = ρ·g/‖g‖ according to ``rho`` and ``norm``; None if the gradient is zero."""
        return lengthened(moved.gradients, self.options.rho, self.options.norm, moved.axes)


def warn_if_never(run: SetupContext, interval: int) -> None:
    """Warn of a run that ends before its first perturbed step."""
    if run.steps is not None and run.steps < interval:
        run.report.warn(
            f"no step is perturbed: --geometry.interval is {interval}, but the run has {run.steps} "
            f"steps; set --geometry.interval {run.steps} or less, or take more steps"
        )


def chosen(ctx: StepContext, select: str) -> tuple[list[str], list[torch.nn.Parameter]]:
    """Names and weights of the trainable parameters that ``select`` names, in the model's order."""
    kept = named_by(ctx.named_trainable(), select)
    return list(kept), list(kept.values())


def named_by(named: dict[str, torch.nn.Parameter], select: str) -> dict[str, torch.nn.Parameter]:
    """The parameters that ``select`` names.

    Raises:
        UsageError: a pattern matches none of them.
    """
    if select == EVERYTHING:
        return named
    patterns = [pattern.strip() for pattern in select.split(",")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UsageError(
                f"--geometry.select: no trainable weight is called {pattern!r}",
                hint=f"one is called {next(iter(named), 'nothing: all are frozen')}; * stands for any text",
            )
    return {name: weight for name, weight in named.items() if any(fnmatchcase(name, p) for p in patterns)}


def ascend(ctx: StepContext, options: PerturbationOptions, delta: Delta) -> StepLoss:
    """The step of SAM and its variants: the gradient at θ, ε from it, and the gradient at θ + ε left in ``.grad``.

    With ``rho`` 0, outside the interval, or if ``delta`` returns None, it is the plain step.
    """

    def take(one: StepContext) -> StepLoss:
        return one.backward() if plain(one, options) else visit(one, options.select, with_radius(options, delta))[0]

    if isinstance(options, AscentOptions) and options.scope == "microbatch":
        return in_parts(ctx, take, plain=plain(ctx, options))
    return take(ctx)


def in_parts(ctx: StepContext, take: Callable[[StepContext], StepLoss], *, plain: bool) -> StepLoss:
    """Apply ``take`` to each micro-batch separately.

    Args:
        plain: it is a plain step, equal to the whole step's unless the objective couples pairs.
    """
    if plain and not ctx.engine.objective.coupled:
        return take(ctx)
    return ctx.join([take(part) for part in ctx.parts()])


def both_gradients(
    ctx: StepContext, options: PerturbationOptions, delta: Delta
) -> tuple[StepLoss, list[torch.Tensor] | None]:
    """Like :func:`ascend` for a whole step, also returning the gradient at θ of all trainable weights; None if plain.

    ``.grad`` holds the gradient at θ + ε (at θ if nothing was perturbed); :func:`combine` combines the two there.
    """
    if plain(ctx, options):
        return ctx.backward(), None
    weights = ctx.trainable()
    loss, gradients = visit(ctx, options.select, with_radius(options, delta), keep=weights)
    ctx.log("gradient_cosine", cosine(gradients, grads(weights)))
    return loss, gradients


def with_radius(options: Options, delta: Delta) -> Delta:
    """``delta``; with ``radius gap``, scaled so that the predicted rise is ``gap_share`` of the value."""
    if not isinstance(options, GapOptions) or options.radius != "gap":
        return delta

    def scaled(ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        epsilon = delta(ctx, moved)
        rise = 0.0 if epsilon is None else predicted_rise(moved, epsilon)
        if epsilon is None or not rise > 0 or moved.value == 0:
            return None
        factor = options.gap_share * abs(moved.value) / rise
        return epsilon.times(factor) if isinstance(epsilon, Scaled) else Scaled(epsilon, factor, norm(epsilon))

    return scaled


def predicted_rise(moved: Moved, epsilon: Sequence[torch.Tensor]) -> float:
    """g·ε: the rise L(θ + ε) − L(θ) to first order."""
    if isinstance(epsilon, Scaled) and epsilon.parts is moved.gradients:
        return epsilon.length * epsilon.length_of_parts
    return dot(moved.gradients, epsilon)


def visit(
    ctx: StepContext, select: str, delta: Delta, *, keep: Sequence[torch.Tensor] | None = None
) -> tuple[StepLoss, list[torch.Tensor]]:
    """The report at θ and the gradient of ``keep`` there; the gradient at θ + ε is added to ``.grad``.

    Args:
        keep: trainable weights, including those named by ``select``; None to return no gradient, which saves memory.
    """
    names, weights = chosen(ctx, select)
    wanted = weights if keep is None else keep
    loss, gradients = ctx.gradient(wanted)
    by_id = {id(weight): gradient for weight, gradient in zip(wanted, gradients, strict=True)}
    found, axes = [by_id[id(weight)] for weight in weights], ctx.output_axes(weights)
    moved = Moved(names, weights, found, float(loss.value), axes)
    epsilon = delta(ctx, moved)
    if isinstance(epsilon, Scaled) and epsilon.parts is moved.gradients:
        length = epsilon.length_of_parts
    else:
        length = norm(moved.gradients)
    ctx.log("ascent_grad_norm", length)
    if epsilon is not None:
        ctx.log("predicted_rise", predicted_rise(moved, epsilon))
    kept = [] if keep is None else gradients
    del gradients, by_id, found, moved
    if epsilon is None:
        ctx.backward()
        return loss, kept
    ctx.log("radius", norm(epsilon))
    move = ctx.perturbed(weights, epsilon)
    del epsilon
    with move:
        there = ctx.backward()
    ctx.log("sharpness_gap", float(there.value - loss.value))
    return loss, kept


def gradient_at(ctx: StepContext, weights: Sequence[torch.Tensor], epsilon: Sequence[torch.Tensor]) -> StepLoss:
    """The report at θ, from a forward pass only; the gradient at θ + ε is added to ``.grad``."""
    loss = ctx.evaluate()
    ctx.log("radius", norm(epsilon))
    with ctx.perturbed(weights, epsilon):
        there = ctx.backward()
    ctx.log("sharpness_gap", float(there.value - loss.value))
    return loss


def combine(weights: Sequence[torch.nn.Parameter], there: float, here: float, other: Sequence[torch.Tensor]) -> None:
    """``.grad`` ← ``there``·``.grad`` + ``here``·``other``, in place, for weights that have a gradient."""
    with torch.no_grad():
        for weight, tensor in zip(weights, other, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(there).add_(tensor.to(weight.grad), alpha=here)


def grads(weights: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    """The weights' ``.grad``, zeros for those without."""
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]


def lengthened(
    direction: Sequence[torch.Tensor], rho: float, over: Over = "global", axes: Sequence[Axes] | None = None
) -> Sequence[torch.Tensor] | None:
    """The direction scaled to length ρ over all tensors; None if it is zero.

    ``layer`` and ``neuron`` give every tensor, or every output's part of it, the same share of ρ²; zero parts get none,
    and the others share all of it.

    Args:
        axes: the dimensions of each tensor that index outputs (``ctx.output_axes``), for ``neuron``.
    """
    if over == "global":
        length = norm(direction)
        return Scaled(direction, rho / length, length) if length > 0 else None
    if over == "layer":
        axes = [()] * len(direction)
    if axes is None:
        raise ValueError("norm neuron needs the output axes: pass ctx.output_axes(weights)")
    squares = squares_by_output(direction, axes)
    number = _positive(squares, direction, axes)
    if number == 0:
        return None
    each = rho / number**0.5
    scales = [torch.where(square > 0, each / square.sqrt(), torch.zeros_like(square)) for square in squares]
    return [like(local(part) * scale.to(part.dtype), part) for part, scale in zip(direction, scales, strict=True)]


def _positive(squares: Sequence[torch.Tensor], of: Sequence[torch.Tensor], axes: Sequence[Axes]) -> int:
    """How many of the squares of :func:`squares_by_output` are positive, over all ranks."""
    found = [(square > 0).sum() for square in squares]
    shared = sums(found, of)  # if the first dimension indexes outputs, a rank has those of its rows
    return sum(int(both if 0 in kept else n) for n, both, kept in zip(found, shared, axes, strict=True))
