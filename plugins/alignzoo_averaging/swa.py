"""Stochastic Weight Averaging, beside any controller.

    θ̄ = mean of θ after steps start + interval, start + 2·interval, ...     evaluated and saved: θ̄

Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, *Averaging Weights Leads to Wider Optima and Better Generalization*,
arXiv 1803.05407, algorithm 1 without its cyclic learning rate: the schedule stays the run's own, so give one that does
not end at 0 (``--schedule constant``). Batch-norm statistics, which the authors update at the end, do not exist in the
models here. θ̄ is kept in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from alignzoo.geometry.average import WeightAverage, check_schedule, is_due
from alignzoo.interfaces import GeometryController
from alignzoo.plugin import Card, Options, Paper, Verified

if TYPE_CHECKING:
    from alignzoo.train.context import SetupContext, StepContext


class SWAOptions(Options):
    """How often, and from when on; steps are optimizer steps."""

    interval: int = Field(1, ge=1, description="include the weights every so many optimizer steps")
    start: int = Field(0, ge=0, description="optimizer steps before the first is included")


class SWA(GeometryController):
    """A running mean that is evaluated and saved in place of the weights."""

    options: SWAOptions

    def setup(self, run: SetupContext) -> None:
        check_schedule("swa", start=self.options.start, interval=self.options.interval, steps=run.steps)
        self.average = WeightAverage(run.model)

    def after_step(self, ctx: StepContext) -> None:
        if not is_due(ctx.step, start=self.options.start, interval=self.options.interval):
            return
        self.average.include(lambda n: 1 / n)
        ctx.log("swa_distance", self.average.distance())

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        with self.average.in_place():
            yield

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state)


CARD = Card(
    api=1,
    kind="geometry",
    name="swa",
    target=f"{__name__}:SWA",
    options=SWAOptions,
    summary="Running mean of the weights, evaluated and saved in their place",
    formula="θ̄ = mean of θ over steps",
    paper=Paper(title="Averaging Weights Leads to Wider Optima and Better Generalization", arxiv="1803.05407"),
    companion=True,
    averages=True,
    sharded=True,
    verified=(Verified(against="torch.optim.swa_utils", test="test_swa_equals_torch"),),
)
