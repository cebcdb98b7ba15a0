"""Rows in generation: they join after their prefill, step together, and leave when they have ended."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from alignzoo.generate.cache import SlotCache
from alignzoo.generate.choose import Row


class Slots:
    """The rows of one model that are in generation.

    Args:
        model: without adapters' wrapper, as :func:`~alignzoo.generate.loop.steps_alone` accepts it.
        prefix: tokens that all prompts begin with; they are processed once.
    """

    def __init__(self, model: Any, prefix: Sequence[int] = ()) -> None:
        self.rows: list[Row] = []
        self.prefix = list(prefix)
        self._model = model
        self._cache: SlotCache | None = None
        self._kept = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self._head: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def prefill(self, rows: Sequence[Row]) -> tuple[torch.Tensor, DynamicCache]:
        """Logits (rows, vocabulary) after each row's tokens, and their cache."""
        start = len(self.prefix)
        cache = self._prefix_cache(len(rows))
        rests = [(row.prompt + row.new)[start:] for row in rows]
        width = max(map(len, rests))
        ids = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests])
        pads = torch.tensor([[width - len(rest)] for rest in rests])
        columns = torch.arange(width)
        positions = start + (columns - pads).clamp(min=0)
        seen = None
        if pads.any():
            seen = torch.cat([torch.ones(len(rows), start, dtype=torch.bool), columns >= pads], dim=1)
        return self._forward(ids, positions, seen, cache), cache

    def join(self, rows: Sequence[Row], cache: DynamicCache, capacity: int, longest: int) -> None:
        """Add rows after their prefill, which gave them one token each.

        Args:
            capacity: most rows at a time, fixed by the first call.
            longest: most tokens of a row, likewise.
        """
        if self._cache is None:
            self._cache = SlotCache(capacity, longest)
        self._cache.join(cache, [row.length - 1 for row in rows], len(self.prefix))
        self.rows += rows

    @torch.no_grad()
    def step(self) -> torch.Tensor:
        """Logits (rows, vocabulary) after each row's last token."""
        assert self._cache is not None
        ids = torch.tensor([row.new[-1:] for row in self.rows])
        logits = self._forward(ids, self._cache.positions(), self._cache.mask(), self._cache)
        self._cache.grown()
        return logits

    def leave(self, ended: Sequence[int]) -> None:
        """Remove rows by their place in ``rows``."""
        assert self._cache is not None
        rows, gone = len(self.rows) - len(ended), set(ended)
        holes = [place for place in ended if place < rows]
        movers = [place for place in range(rows, len(self.rows)) if place not in gone]
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[rows:]
        self._cache.leave(holes, movers, rows)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        device = self._model.device
        output = self._model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            attention_mask=None if mask is None else mask.to(device),
            past_key_values=cache,
            use_cache=True,
            **self._kept,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _prefix_cache(self, rows: int) -> DynamicCache:
        """A cache with the prefix in every row."""
        if self.prefix and not self._head:
            alone = DynamicCache()
            ids = torch.tensor([self.prefix])
            self._forward(ids, torch.arange(len(self.prefix))[None], None, alone)
            self._head = [(layer.keys, layer.values) for layer in alone.layers]
        cache = DynamicCache()
        for index, states in enumerate(self._head):
            keys, values = (part.expand(rows, -1, -1, -1) for part in states)
            cache.update(keys, values, index)
        return cache
