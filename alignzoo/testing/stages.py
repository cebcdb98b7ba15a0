"""What the kit puts around a method that is no loss, no wrapper or no controller: the simplest of each, its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card, Options
from alignzoo.contract.geometry import GeometryCard
from alignzoo.contract.pairs import PairBatch
from alignzoo.interfaces import GeometryController, PreferenceLoss, RobustWrapper, StepLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin.build import instantiate

if TYPE_CHECKING:
    from alignzoo.contract.step import SetupContext, StepContext
    from alignzoo.objective.objective import Objective

BETA = 0.3
LEARNING_RATE = 0.1


class Logistic(PreferenceLoss):
    """−log σ of the scaled difference of log-ratios, ``(B,)``."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return BETA * chosen, BETA * rejected


class SoftMinimum(RobustWrapper):
    """−log mean exp(−ℓ): an objective that couples all pairs of a step."""

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return math.log(len(losses)) - torch.logsumexp(-losses, 0)


class AtTheWeights(GeometryController):
    """The gradient at the current weights."""

    def step(self, ctx: StepContext) -> StepLoss:
        return ctx.backward()


class Accompanied(GeometryController):
    """A companion in a life of its own: each step is a plain one with gradient descent after it, and what it leaves in
    ``.grad`` are the weights that would be evaluated then."""

    def __init__(self, companion: GeometryController) -> None:
        super().__init__(companion.options)
        self.companion = companion

    def setup(self, run: SetupContext) -> None:
        self.companion.setup(run)

    def step(self, ctx: StepContext) -> StepLoss:
        loss = ctx.backward()
        weights = ctx.trainable()
        with torch.no_grad():
            for weight in weights:
                if weight.grad is not None:
                    weight.sub_(LEARNING_RATE * weight.grad)
        self.companion.after_step(ctx)
        with self.companion.for_evaluation():
            evaluated = [weight.detach().clone() for weight in weights]
        for weight, value in zip(weights, evaluated, strict=True):
            weight.grad = value
        return loss

    @contextmanager
    def for_evaluation(self) -> Iterator[None]:
        with self.companion.for_evaluation():
            yield

    def state_dict(self) -> dict[str, Any]:
        return self.companion.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.companion.load_state_dict(state)


def built(card: Card, options: Options) -> Any:
    """A new method object, ready to take steps."""
    method = instantiate(card, options)
    return Accompanied(method) if isinstance(card, GeometryCard) and card.companion else method


def logistic() -> Logistic:
    """A new :class:`Logistic`."""
    return Logistic(Options())


def mean_goal() -> Objective:
    """The mean of :class:`Logistic`."""
    from alignzoo.objective.objective import Objective

    return Objective(logistic())


def coupled_goal() -> Objective:
    """:class:`SoftMinimum` of :class:`Logistic`."""
    from alignzoo.objective.objective import Objective

    return Objective(logistic(), [SoftMinimum(Options())], coupled=True)
