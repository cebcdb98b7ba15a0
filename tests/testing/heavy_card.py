"""A card whose module imports torch, as a careless author would."""

from __future__ import annotations

import torch
from liars import card
from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Options


class HeavyOptions(Options):
    beta: float = Field(0.1, gt=0, description="scale")


class Heavy(PreferenceLoss):
    options: HeavyOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return self.options.beta * (pairs.rejected_logps - pairs.chosen_logps)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps


CARD = card(Heavy, options=HeavyOptions)
