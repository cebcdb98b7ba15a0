"""Losses and wrappers that break their contract, one rule each; importable, because other processes load them."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignzoo.contract.kinds import KINDS
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options

REFERENCE = frozenset({"reference"})


def card(method: type, **facts: Any) -> Card:
    """A card of a class in this module."""
    kind = next(kind.name for kind in KINDS.values() if issubclass(method, kind.base))
    name = method.__name__.lower()
    target = f"{method.__module__}:{method.__name__}"
    return Card(**{"kind": kind, "name": name, "target": target, "summary": "liar", "formula": "?", **facts})


class Beta(Options):
    beta: float = Field(0.1, gt=0, description="scale")


class Logistic(PreferenceLoss):
    """An honest loss; each liar changes one thing."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        beta = getattr(self.options, "beta", 0.1)
        return beta * chosen, beta * rejected


class Reduced(Logistic):
    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return super().__call__(pairs).mean()


class Peeking(Logistic):
    """Reads scores that its card does not declare."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        weight = 1.0 if pairs.chosen_scores is None else torch.sigmoid(pairs.chosen_scores)
        return super().__call__(pairs) * weight


class PeekingThroughACopy(Logistic):
    """Reads groups of pairs that it has joined and cut itself."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        both = PairBatch.cat([pairs, pairs.swap()]).rows(slice(0, len(pairs)))
        assert both.groups is None or len(both.groups) == len(pairs)
        return super().__call__(pairs)


class NeedsWhenFancyOptions(Beta):
    mode: Literal["simple", "fancy"] = Field("simple", description="what is read")

    def needs(self) -> frozenset[Any]:
        return frozenset({"token-logps"}) if self.mode == "fancy" else frozenset()


class DeclaresForNothing(Logistic):
    """Its options declare token log-probs for a mode that does not read them."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return super().__call__(pairs) * (2.0 if self.options.mode == "fancy" else 1.0)


class DeadOptions(Beta):
    strength: float = Field(1.0, ge=0, le=2, description="of nothing")


class Dead(Logistic):
    pass


class WordOptions(Beta):
    words: tuple[str, ...] = Field((), description="of which no other value can be guessed")


class Unguessable(Logistic):
    pass


class Detached(Logistic):
    """The gradient of one side got lost."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected.detach())


class Overflowing(Logistic):
    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -torch.log(torch.sigmoid(chosen - rejected))


class NaNGradient(Logistic):
    """Values are finite, one branch of where() is not: its gradient is NaN."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        return torch.where(margin > -30, torch.log1p(torch.exp(-margin)), -margin)


class Coupled(Logistic):
    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        values = super().__call__(pairs)
        return values - 0.5 * values.mean().detach()


class PaddingCoupled(PreferenceLoss):
    """Divides by the width of the padding, which is that of the longest pair."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        assert pairs.chosen_token_logps is not None
        assert pairs.rejected_token_logps is not None
        return F.softplus(pairs.rejected_token_logps.mean(-1) - pairs.chosen_token_logps.mean(-1))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps


class FirstPairCounts(Logistic):
    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        values = super().__call__(pairs)
        return values * torch.linspace(2, 1, len(values), dtype=values.dtype)


class OneSidedRewards(Logistic):
    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = super().rewards(pairs)
        return chosen, 2 * rejected


class Forgets(Logistic):
    """A running offset that no checkpoint holds."""

    offset = 0.0

    def observe(self, pairs: PairBatch) -> None:
        self.offset = 0.9 * self.offset + 0.1 * float(sum(pairs.log_ratios()).mean())  # type: ignore[union-attr]

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return (chosen - rejected - self.offset) ** 2


class CountsCalls(Logistic):
    calls = 0

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        self.calls += 1
        return super().__call__(pairs) * (1 + 0.01 * self.calls)


class SavesAnObject(Logistic):
    def state_dict(self) -> dict[str, Any]:
        return {"options": self.options}


class Fails(Logistic):
    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        raise ZeroDivisionError("by the author")


class Temperature(Options):
    temperature: float = Field(1.0, gt=0, description="softness")


class SoftMinimum(RobustWrapper):
    """An honest aggregation."""

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        t = self.options.temperature
        return -t * (torch.logsumexp(-losses / t, 0) - torch.tensor(float(len(losses))).log())

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-losses.detach() / self.options.temperature, 0)


class WrongWeights(SoftMinimum):
    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return torch.softmax(losses.detach() / self.options.temperature, 0)


class OverflowingMinimum(SoftMinimum):
    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        t = self.options.temperature
        return -t * torch.log(torch.exp(-losses / t).mean())


class SilentAggregator(SoftMinimum):
    pass


class Flat(RobustWrapper):
    """The plain mean under another name."""


class FlatWeights(RobustWrapper):
    """The mean scaled, with weights that still hang on the losses."""

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        leaf = losses.detach().requires_grad_(True)
        return leaf * 0 + self.options.temperature / len(losses)


class Flip(RobustWrapper):
    """Honest: some of each pair's label is the other one."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        return 0.9 * loss(pairs) + 0.1 * loss(pairs.swap())


class FailsOnRankOne(RobustWrapper):
    """One rank stops while the other waits for it."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        if os.environ.get("RANK") == "1":
            raise RuntimeError("rank one has enough")
        return loss(pairs)


class InOrder(SoftMinimum):
    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        falling = torch.linspace(2, 1, len(losses), dtype=losses.dtype)
        return (falling * losses).sum() / falling.sum()

    weights = RobustWrapper.weights


class CentredValues(RobustWrapper):
    """Per pair, but relative to the other pairs that happen to be there."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        values = loss(pairs)
        return values * torch.exp(-(values - values.mean()).detach())


class PeekingWrapper(RobustWrapper):
    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        values = loss(pairs)
        return values if pairs.ref_chosen_logps is None else values + 0.01 * pairs.ref_chosen_logps


class OverflowingValues(RobustWrapper):
    """Finite objective, infinite values: of pairs whose margin is far below 0."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        return torch.log(torch.exp(loss(pairs)))


class SilentReduction(RobustWrapper):
    """Weighs groups over the step, and its card does not say so."""

    def reduce(self, losses: torch.Tensor, pairs: PairBatch) -> torch.Tensor:
        assert pairs.groups is not None
        weights = torch.softmax(-pairs.groups.to(losses.dtype), 0)
        return (weights * losses).sum()


class ForgetsInside(RobustWrapper):
    """A running margin, learnt from both labels, that no checkpoint holds."""

    margin = 0.0

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        return loss(pairs) * (1 + self.margin**2)

    def observe_inside(self, loss: Any, pairs: PairBatch) -> None:
        self.margin = 0.9 * self.margin + 0.1 * float((loss(pairs.swap()) - loss(pairs)).mean())


class LooseOptions(Options):
    model_config = ConfigDict(extra="ignore")
    beta: float = Field(0.1, description="scale")


class ThawedOptions(Options):
    model_config = ConfigDict(frozen=False)
    beta: float = Field(0.1, gt=0, description="scale")
