"""What sharpness-aware controllers share: the weights they move, how far, when, and the passes at θ and at θ + ε.

A controller's file then holds its mathematics alone: the direction it moves in, and what it makes of the two gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from alignzoo.contract.card import Options
from alignzoo.contract.geometry import GeometryController
from alignzoo.distributed.shards import Rows, cut_like, like, local, sums
from alignzoo.errors import UsageError
from alignzoo.geometry.outputs import Axes, squares_by_output
from alignzoo.geometry.perturb import Scaled, cosine, dot, norm
from alignzoo.lazy import torch

if TYPE_CHECKING:
    from alignzoo.contract.geometry import StepLoss
    from alignzoo.contract.step import SetupContext, StepContext

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
    Over, Field(description="what shares the length: all weights, each tensor alike, or each output's weights alike")
]
Scope = Annotated[
    Literal["step", "microbatch"],
    Field(description="the objective: the whole step's, or each micro-batch's own"),
]


GapShare = Annotated[
    float, Field(gt=0, description="predicted rise of the loss, g·ε, as a share of the loss (radius gap)")
]


def refuse_idle_lengths(radius: str, given: set[str]) -> None:
    """Raise ValueError where ``rho`` or ``gap_share`` is among the options given and has no effect."""
    if radius == "gap" and "rho" in given:
        raise ValueError("rho does nothing with radius gap; set gap_share, or radius normalized")
    if radius != "gap" and "gap_share" in given:
        raise ValueError(f"gap_share does nothing with radius {radius}; set radius gap")


class PerturbationOptions(Options):
    """How far, when, which weights, and what shares the length."""

    rho: Rho = 0.05
    interval: Interval = 1
    select: Select = EVERYTHING
    norm: Norm = "global"


class GapOptions(Options):
    """A length that is set, or found in each step; for perturbations along which the objective rises to first order."""

    rho: Rho = 0.05
    radius: Literal["normalized", "gap"] = Field(
        "normalized", description="ε has length ρ, or the length at which g·ε is a share of the loss"
    )
    gap_share: GapShare = 0.1

    @model_validator(mode="after")
    def _no_idle_length(self) -> GapOptions:
        refuse_idle_lengths(self.radius, self.model_fields_set)
        return self


class ClimbOptions(GapOptions, PerturbationOptions):
    """How far, when, which weights, and what shares the length; the length set or found."""


class AscentOptions(ClimbOptions):
    """The same, with the scope of the objective."""

    scope: Scope = "step"


@dataclass(frozen=True)
class Moved:
    """The weights that a controller moves in a step, with the step's gradient there.

    Attributes:
        names: of the parameters, as the model calls them.
        weights, gradients: tensors of the same shapes; a gradient is the whole step's, over all ranks.
        value: of the objective at θ.
        axes: the dimensions of each that number the outputs of its module.
    """

    names: Sequence[str]
    weights: Sequence[torch.Tensor]
    gradients: Sequence[torch.Tensor]
    value: float
    axes: Sequence[Axes]


Delta = Callable[["StepContext", Moved], "Sequence[torch.Tensor] | None"]
"""From the gradient at θ to ε, tensor by tensor; None where there is nowhere to go."""


def plain(ctx: StepContext, options: PerturbationOptions) -> bool:
    """Whether this step is not perturbed: ρ is 0, or it is not the last of an interval."""
    return options.rho == 0 or (ctx.step + 1) % options.interval != 0


class WeightMover(GeometryController):
    """A controller that moves the trainable weights which its option ``select`` names."""

    def setup(self, run: SetupContext) -> None:
        """Check, before the first step, that there are such weights.

        Raises:
            UsageError: a pattern names none of them.
        """
        named_by({n: w for n, w in run.model.named_parameters() if w.requires_grad}, self.options.select)
        warn_if_never(run, getattr(self.options, "interval", 1))

    def steepest(self, ctx: StepContext, moved: Moved) -> Sequence[torch.Tensor] | None:
        """ε = ρ·g/‖g‖ by the options ``rho`` and ``norm``; None where there is no gradient."""
        return lengthened(moved.gradients, self.options.rho, self.options.norm, moved.axes)


def warn_if_never(run: SetupContext, interval: int) -> None:
    """Warn of a run that ends before its first perturbed step."""
    if run.steps is not None and run.steps < interval:
        run.report.warn(
            f"no step is perturbed: --geometry.interval is {interval}, and the run takes {run.steps} "
            f"steps; set --geometry.interval {run.steps} or less, or take more steps"
        )


def chosen(ctx: StepContext, select: str) -> tuple[list[str], list[torch.nn.Parameter]]:
    """Names and weights of the trainable parameters that ``select`` names, in the model's order."""
    kept = named_by(ctx.named_trainable(), select)
    return list(kept), list(kept.values())


def named_by(named: dict[str, torch.nn.Parameter], select: str) -> dict[str, torch.nn.Parameter]:
    """Those of some parameters that ``select`` names.

    Raises:
        UsageError: a pattern names none of them.
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
    """The step of SAM and its kin: the gradient at θ, ε from it, and the gradient at θ + ε left in ``.grad``.

    With ``rho`` 0, outside the interval, or where ``delta`` finds nowhere to go, it is the plain step.
    """

    def take(one: StepContext) -> StepLoss:
        return one.backward() if plain(one, options) else visit(one, options.select, with_radius(options, delta))[0]

    if isinstance(options, AscentOptions) and options.scope == "microbatch":
        return in_parts(ctx, take, plain=plain(ctx, options))
    return take(ctx)


def in_parts(ctx: StepContext, take: Callable[[StepContext], StepLoss], *, plain: bool) -> StepLoss:
    """The step that ``take`` takes of each micro-batch alone.

    Args:
        plain: it is a plain step, which is that of the whole where the objective couples no pairs.
    """
    if plain and not ctx.engine.objective.coupled:
        return take(ctx)
    return ctx.join([take(part) for part in ctx.parts()])


def both_gradients(
    ctx: StepContext, options: PerturbationOptions, delta: Delta
) -> tuple[StepLoss, list[torch.Tensor] | None]:
    """As :func:`ascend` for a whole step, with the gradient at θ of all trainable weights; None in a plain step.

    The weights' ``.grad`` hold the gradient at θ + ε (at θ where nothing moved); :func:`combine` joins the two there.
    """
    if plain(ctx, options):
        return ctx.backward(), None
    weights = ctx.trainable()
    loss, gradients = visit(ctx, options.select, with_radius(options, delta), keep=weights)
    ctx.log("gradient_cosine", cosine(gradients, grads(weights)))
    return loss, gradients


def with_radius(options: Options, delta: Delta) -> Delta:
    """``delta``; under ``radius gap`` with the length at which the predicted rise is the share of the value."""
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
        keep: trainable weights, those that ``select`` names among them; None for no gradient, which saves its memory.
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
    """The report at θ, from a forward pass alone; the gradient at θ + ε is added to ``.grad``."""
    loss = ctx.evaluate()
    ctx.log("radius", norm(epsilon))
    with ctx.perturbed(weights, epsilon):
        there = ctx.backward()
    ctx.log("sharpness_gap", float(there.value - loss.value))
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


def lengthened(
    direction: Sequence[torch.Tensor], rho: float, over: Over = "global", axes: Sequence[Axes] | None = None
) -> Sequence[torch.Tensor] | None:
    """The direction with length ρ over all tensors together; None if it has no length.

    ``layer`` and ``neuron`` give every tensor, or every output's part of it, the same share of ρ²; those without a
    direction get none, and the others share what is left.

    Args:
        axes: the dimensions of each tensor that number outputs (``ctx.output_axes``), for ``neuron``.
    """
    if over == "global":
        length = norm(direction)
        return Scaled(direction, rho / length, length) if length > 0 else None
    if over == "layer":
        axes = [()] * len(direction)
    if axes is None:
        raise ValueError("norm neuron needs the axes of the outputs: give ctx.output_axes(weights)")
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
    shared = sums(found, of)  # where the first dimension numbers outputs, a rank has those of its rows
    return sum(int(both if 0 in kept else n) for n, both, kept in zip(found, shared, axes, strict=True))


def noise_like(weights: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Independent standard normal numbers in the weights' shapes, dtypes and places."""
    return [cut_like(torch.randn(w.shape, generator=generator).to(w.dtype), w) for w in weights]


def kth_smallest(
    parts: Sequence[torch.Tensor],
    k: int,
    generator: torch.Generator,
    *,
    among: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The k-th smallest (from 1) of all numbers in ``parts``, or of those among them at True, ``()``.

    Of more than :data:`EXACT_UP_TO` numbers, the same quantile of that many drawn from them with replacement.
    """
    values = [local(part).flatten() for part in parts]
    if among is not None:
        values = [value[local(place).flatten()] for value, place in zip(values, among, strict=True)]
    rows = Rows(values, parts)
    number = sum(rows.counts)
    if number <= EXACT_UP_TO:
        return rows.all().kthvalue(k).values
    draws = [
        torch.randint(n, (math.ceil(EXACT_UP_TO * n / number),), generator=generator)
        if n
        else torch.empty(0, dtype=torch.int64)
        for n in rows.counts
    ]
    drawn = rows.drawn(draws)
    return drawn.kthvalue(max(1, round(k / number * len(drawn)))).values


def drawn_from(places: Sequence[torch.Tensor], number: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Masks that are True at ``number`` of the places that are, drawn without replacement."""
    rows = Rows([torch.empty(int(local(place).sum())) for place in places], places)
    drawn = torch.zeros(sum(rows.counts), dtype=torch.bool)
    drawn[torch.randperm(len(drawn), generator=generator)[:number]] = True
    masks = []
    for place, mine in zip(places, rows.offsets(), strict=True):
        mask = torch.zeros_like(local(place))
        mask[local(place)] = drawn[mine].to(mask.device)
        masks.append(like(mask, place))
    return masks
