"""The same steps taken in different ways, compared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from alignzoo.contract.card import Options
from alignzoo.lazy import torch
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from alignzoo.testing.steps import Stage, Taken

TOLERANCE = 1e-8
"""Relative, in float64, through a model."""
EXACT = 1e-9
"""Relative, in float64, of a method's own arithmetic: only the order of sums may differ."""

Runs = Sequence[tuple[Configuration, Sequence[int]]]
"""Configurations, each with the steps to take."""

_REMEDIES = {
    "splits": "let what couples pairs see the whole step: declare batch_coupled, and keep no state between evaluations",
    "accumulation": "work with the whole step (ctx.gradient, ctx.backward), not with micro-batches, or offer that as "
    "an option scope='microbatch'",
    "sharded": "weights and gradients are DTensors there: sum over all ranks with alignzoo.geometry.perturb.norm and "
    "dot, or leave `sharded` out of the card",
    "ranks": "draw with ctx.generator, which is the same on all ranks, and use what the step context gives, which is "
    "summed over ranks",
}


def two_steps(subject: Subject) -> Runs:
    """Every configuration with two steps, so that what one leaves behind shows in the next."""
    return [(configuration, (0, 1)) for configuration in subject.configurations]


def same_however_cut(subject: Subject, stage: Stage, runs: Runs, *, rule: str) -> None:
    """One micro-batch of 8 pairs, two of 4 and eight of 1 give the same steps.

    Raises:
        Violation: they do not, to :data:`TOLERANCE`.
    """
    from alignzoo.testing.steps import trajectory

    for configuration, steps in runs:
        whole = trajectory(stage, subject.card, configuration.options, steps, 8)
        for size in (4, 1):
            taken = trajectory(stage, subject.card, configuration.options, steps, size)
            how = f"{8 // size} micro-batches of {size}, {configuration}"
            check_same(taken, whole, what=how, against="that of one micro-batch of 8", remedy=_REMEDIES[rule])


def same_on_two_ranks(subject: Subject, stage: Stage, runs: Runs, *, sharded: bool = False) -> None:
    """Two ranks with two micro-batches each take the steps that one rank takes; ``sharded``: each with a part of the
    weights.

    Raises:
        Violation: they do not, to :data:`TOLERANCE`.
    """
    from alignzoo.testing.ranks import on_two_ranks
    from alignzoo.testing.steps import trajectories

    card = subject.card
    given: list[tuple[Options, Sequence[int]]] = [(configuration.options, steps) for configuration, steps in runs]
    expected = trajectories(stage, card, given, 4)
    job, remedy = partial(trajectories, sharded=sharded), _REMEDIES["sharded" if sharded else "ranks"]
    modules = [card.options.__module__, card.target.partition(":")[0]]
    for rank, found in enumerate(on_two_ranks(job, stage, card, given, 2, modules=modules)):
        for (configuration, _), taken, one in zip(runs, found, expected, strict=True):
            how = f"rank {rank} of 2, {configuration}"
            check_same(taken, one, what=how, against="that of a single rank", remedy=remedy)


def check_same(found: Sequence[Taken], expected: Sequence[Taken], *, what: str, against: str, remedy: str) -> None:
    """Hold steps to others, to :data:`TOLERANCE` of the largest element.

    Raises:
        Violation: a value, the pairs' weights or a gradient differs.
    """
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        for part in ("value", "weights", "gradient"):
            error = relative_error(getattr(one, part), getattr(other, part))
            if not error <= TOLERANCE:
                raise Violation(
                    expected=f"the {part} to be {against}, to {TOLERANCE:g}",
                    found=f"a relative difference of {error:.2g} in step {i + 1} ({what})",
                    remedy=remedy,
                )


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest element; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    difference = float((found - expected).abs().max()) if expected.numel() else 0.0
    return difference / scale if scale > 0 else difference
