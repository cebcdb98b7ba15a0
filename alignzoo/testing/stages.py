"""What the kit puts around a method that is no loss, no wrapper or no controller: the simplest of each, its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from alignzoo.interfaces import GeometryController, PreferenceLoss, RobustWrapper, StepLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin.card import Options

if TYPE_CHECKING:
    from alignzoo.train.context import StepContext
    from alignzoo.train.objective import Objective

BETA = 0.3


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


def logistic() -> Logistic:
    return Logistic(Options())


def mean_goal() -> Objective:
    """The mean of :class:`Logistic`."""
    from alignzoo.train.objective import Objective

    return Objective(logistic())


def coupled_goal() -> Objective:
    """:class:`SoftMinimum` of :class:`Logistic`."""
    from alignzoo.train.objective import Objective

    return Objective(logistic(), [SoftMinimum(Options())], coupled=True)
