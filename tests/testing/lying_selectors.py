"""Selectors that break their contract, each in one way."""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field

from alignzoo.interfaces import Selection, SelectionContext, Selector
from alignzoo.lazy import torch
from alignzoo.plugin import Options


class Every(Options):
    every: int = Field(2, ge=1, description="keeps every so many rows", examples=[3])


class DeadOptions(Every):
    depth: int = Field(3, ge=1, description="does nothing")


class Thinned(Selector):
    """Honest: every second row."""

    def select(self, ctx: SelectionContext) -> Selection:
        return Selection(range(0, len(ctx), getattr(self.options, "every", 2)))


class Nothing(Selector):
    def select(self, ctx: SelectionContext) -> Any:
        return None


class ByNumber(Selector):
    """Row numbers of the data in place of indices."""

    def select(self, ctx: SelectionContext) -> Selection:
        return Selection(ctx.row_ids.tolist())


class Twice(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        return Selection([0, 0, 1])


class FlipsWhatItDrops(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        return Selection([1, 2], flipped=[0])


class WholeResponse(Selector):
    """Leaves no token of the response."""

    def select(self, ctx: SelectionContext) -> Selection:
        return Selection(prefixes={0: len(ctx.response_ids()[0][-1])})


class Drawn(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        return Selection(random.sample(range(len(ctx)), 6))


class Peeks(Selector):
    """Reads safety flags where it can."""

    def select(self, ctx: SelectionContext) -> Selection:
        return Selection([0] if ctx.safe is None else [row for row, safe in enumerate(ctx.safe) if safe[0]])


class AsksForTheModel(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        logps, _ = ctx.model.scan(ctx.model.policy)
        return Selection([int(logps.argmax()) // 2])


class TrainsThePolicy(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        with torch.no_grad():
            next(ctx.model.policy.parameters()).mul_(1.01)
        return Selection()


class DrawsFromTorch(Selector):
    """The same rows always, but the run's random numbers move on."""

    def select(self, ctx: SelectionContext) -> Selection:
        torch.rand(3)
        return Selection([0, 1])


class Ordered(Selector):
    def select(self, ctx: SelectionContext) -> Selection:
        return Selection(range(len(ctx) - 1, -1, -1), keep_order=True)
