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
        width = max(row.length for row in rows) - start
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        seen = torch.ones(len(rows), start + width, dtype=torch.bool)
        positions = torch.empty_like(ids)
        for at, row in enumerate(rows):
            rest = (row.prompt + row.new)[start:]
            pad = width - len(rest)
            ids[at, pad:] = torch.tensor(rest)
            seen[at, start : start + pad] = False
            positions[at] = torch.arange(start - pad, start + width - pad).clamp(min=start)
        return self._forward(ids, positions, None if seen.all() else seen, cache), cache

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
        positions = torch.tensor([[row.length - 1] for row in self.rows])
        logits = self._forward(ids, positions, self._cache.mask(), self._cache)
        self._cache.grown()
        return logits

    def leave(self, ended: Sequence[int]) -> None:
        """Remove rows by their place in ``rows``."""
        assert self._cache is not None
        for place in sorted(ended, reverse=True):
            self._cache.leave(place)
            last = self.rows.pop()
            if place < len(self.rows):
                self.rows[place] = last

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
