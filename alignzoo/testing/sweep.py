"""The first steps of a controller in one configuration, taken as far as somebody asks, and kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.errors import AlignzooError
from alignzoo.lazy import torch
from alignzoo.testing.outcomes import Skipped
from alignzoo.testing.stages import mean_goal
from alignzoo.testing.stateful import same_state
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from alignzoo.contract.responses import ResponseBatch
    from alignzoo.data.collate import TokenBatch

STEPS = 6
"""Steps in which something that happens at intervals is waited for."""


class InjectedFailure(Exception):
    """What :class:`Forwards` raises where it is asked to fail."""


class Forwards:
    """The model's forward with a count; optionally the one at ``fail_at`` fails.

    Attributes:
        count: forwards so far.
        with_gradient: those of them through which a gradient can be taken.
        moved: one was at other weights than ``start``.
    """

    def __init__(self, *, fail_at: int | None = None, start: Sequence[torch.Tensor] | None = None) -> None:
        self.count = self.with_gradient = 0
        self.moved = False
        self._fail_at, self._start = fail_at, start

    def __call__(self, model: torch.nn.Module, batch: TokenBatch) -> ResponseBatch:
        from alignzoo.testing.steps import every_field

        if self.count == self._fail_at:
            raise InjectedFailure("the kit lets this forward fail")
        self.count += 1
        self.with_gradient += torch.is_grad_enabled()
        if self._start is not None:
            self.moved |= any(not torch.equal(*both) for both in zip(model.parameters(), self._start, strict=True))
        return every_field(model, batch)


@dataclass(frozen=True)
class Step:
    """One step of the sweep, in two micro-batches: forward-backward passes, gradient (one vector), logged metrics, and
    whether a forward was at other weights."""

    passes: float
    gradient: torch.Tensor
    metrics: dict[str, float]
    moved: bool

    def differs(self, other: Step) -> bool:
        return self.metrics != other.metrics or not torch.equal(self.gradient, other.gradient)


class Sweep:
    """Steps 0, 1, ... of a new controller at the same weights, on other pairs each.

    Attributes:
        refusal: the error with which it refused to continue.
        moving: its state changed on the way; known after the last step.
    """

    def __init__(self, subject: Subject, configuration: Configuration) -> None:
        self.refusal: str | None = None
        self.moving = False
        self._failure: Exception | None = None
        self._steps: list[Step] = []
        self._rest = self._take(subject, configuration)

    def __iter__(self) -> Iterator[Step]:
        i = 0
        while i < len(self._steps) or self._more():
            yield self._steps[i]
            i += 1

    def _more(self) -> bool:
        if self._failure is not None:  # whoever asks again must not take a broken sweep for one that is over
            raise self._failure
        step = next(self._rest, None)
        if step is not None:
            self._steps.append(step)
        return step is not None

    def _take(self, subject: Subject, configuration: Configuration) -> Iterator[Step]:
        from alignzoo.testing.steps import PAIRS, Bench

        bench, controller, goal = Bench(), subject.build(configuration), mean_goal()
        try:
            bench.setup(controller)
            before = copy.deepcopy(controller.state_dict())
            start = [parameter.detach().clone() for parameter in bench.policy.parameters()]
            for step in range(STEPS):
                forwards = Forwards(start=start)
                ctx = bench.context(goal, step, size=PAIRS // 2, forward=forwards)
                controller.step(ctx)
                yield Step(forwards.with_gradient / 2, bench.gradient(), dict(ctx.metrics), forwards.moved)
            self.moving = not same_state(before, controller.state_dict())
        except AlignzooError as refusal:
            self.refusal = str(refusal)
        except Exception as failure:
            self._failure = failure
            raise


def sweep(subject: Subject, configuration: Configuration) -> Sweep:
    """The configuration's sweep, from the memo."""
    known: dict[Any, Sweep] = subject.memo.setdefault(sweep, {})
    key = repr((configuration.options.model_fields_set, configuration.options))
    return known.setdefault(key, Sweep(subject, configuration)) if key not in known else known[key]


def working(subject: Subject) -> list[Configuration]:
    """The configurations that a tiny llama can be trained in.

    Raises:
        Skipped: the method refuses all of them.
    """
    found = []
    for configuration in subject.configurations:
        first = sweep(subject, configuration)
        next(iter(first), None)
        if first.refusal is None:
            found.append(configuration)
    if not found:
        raise Skipped(f"refused: {sweep(subject, subject.default).refusal}")
    return found


def telling_steps(subject: Subject, configuration: Configuration) -> tuple[int, ...]:
    """The first step, and the first one that takes more passes or logs more, where another does; with all between them
    where the controller's state moves, since it may count its steps itself."""
    taken = sweep(subject, configuration)
    first, *later = list(taken)
    last = 1 if first.passes <= 1 and not first.metrics else 0
    for i, step in enumerate(later, start=1):
        if step.passes > first.passes or step.metrics.keys() - first.metrics.keys():
            last = i
            break
    return tuple(range(last + 1)) if taken.moving else tuple(sorted({0, last}))
