"""Rewards that break their contract, one rule each; importable, because other processes load them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from alignzoo.interfaces import Reward, RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Options


class LengthOptions(Options):
    price: float = Field(1.0, gt=0, description="price of a token")


class Length(Reward):
    """An honest reward; each liar changes one thing."""

    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return [-getattr(self.options, "price", 1.0) * len(response.ids) for response in responses]


class OneTooFew(Length):
    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return super().scores(responses)[1:]


class NotANumber(Length):
    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return [float("nan"), *super().scores(responses)[1:]]


class Tensors(Length):
    def scores(self, responses: Sequence[Any]) -> Any:
        return torch.tensor(super().scores(responses))


class Centred(Length):
    """Less the mean of those that are asked for together."""

    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        found = super().scores(responses)
        return [score - sum(found) / len(found) for score in found]


class ByPlace(Length):
    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return [score - place for place, score in enumerate(super().scores(responses))]


class Drawn(Length):
    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return [score + 1e-6 * random.random() for score in super().scores(responses)]


class DeadOptions(LengthOptions):
    depth: int = Field(3, ge=1, description="does nothing")


class CostOptions(Options):
    price: float = Field(1.0, gt=0, description="price of a token", json_schema_extra={"cost": True})


class PathOptions(Options):
    table: str = Field("one", description="file", examples=["two"], json_schema_extra={"path": True})


class Nameless(Length):
    """Reads what a path leads to, and does not say so."""

    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        return [len(Path(self.options.table).name) * len(response.ids) for response in responses]


_ASKED = itertools.count()


class NewEveryTime(Length):
    def identity(self) -> str:
        return str(next(_ASKED))


class LeavesItsMode(Length):
    def setup(self, run: Any) -> None:
        self.model = run.model

    def scores(self, responses: Sequence[Any]) -> Sequence[float]:
        self.model.eval()
        return super().scores(responses)


class AsksForAProbe(Length):
    def setup(self, run: Any) -> None:
        run.probe(None)


class Relabels(RobustWrapper):
    """Swaps pairs and reads their scores."""

    def per_pair(self, loss: Values, pairs: PairBatch) -> torch.Tensor:
        assert pairs.chosen_scores is not None
        return torch.sigmoid(pairs.chosen_scores) * loss(pairs.swap())
