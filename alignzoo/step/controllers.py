"""The geometry of a run: one controller that takes the gradient, and companions that act after the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from alignzoo.contract.geometry import GeometryController, StepLoss
from alignzoo.errors import MethodError, contained
from alignzoo.plugin.blame import place_of
from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext
from alignzoo.step.states import plain_state


class Controllers:
    """One controller and its companions behind the :class:`GeometryController` interface, called in the given order.

    Args:
        gradient: whose :meth:`~GeometryController.step` is taken.
        companions: controllers whose cards say ``companion``.
    """

    def __init__(self, gradient: GeometryController, companions: Sequence[GeometryController] = ()) -> None:
        self.gradient = gradient
        self.companions = list(companions)

    @property
    def _all(self) -> list[GeometryController]:
        return [self.gradient, *self.companions]

    def setup(self, run: SetupContext) -> None:
        for controller in self._all:
            with contained():
                controller.setup(run)

    def step(self, ctx: StepContext) -> StepLoss:
        with contained():
            report = self.gradient.step(ctx)
        if not isinstance(report, StepLoss):
            given = "None" if report is None else f"a {type(report).__name__}"
            raise MethodError(
                f"{type(self.gradient).__name__} returned {given}; step() must return a StepLoss"
                f"{place_of(type(self.gradient).step)}",
                hint="`alignzoo check` runs the contract tests on a method",
            )
        return report

    def after_step(self, ctx: StepContext) -> None:
        for controller in self._all:
            with contained():
                controller.after_step(ctx)

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        with ExitStack() as stack:
            for controller in self._all:
                stack.enter_context(controller.for_evaluation())
            yield

    def state_dict(self, *, keep: bool = True, sharded: bool = False) -> dict[str, Any]:
        """The states of all, checked to be plain data; ``keep`` and ``sharded`` as of :func:`plain_state`."""
        state = partial(plain_state, keep=keep, sharded=sharded)
        return {"gradient": state(self.gradient), "companions": [state(companion) for companion in self.companions]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gradient.load_state_dict(state["gradient"])
        for controller, saved in zip(self.companions, state["companions"], strict=True):
            controller.load_state_dict(saved)
