"""Rows in generation: they join after their prefill, step together, and leave when they have ended."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from alignzoo.data.rendering import shared_length
from alignzoo.generate.cache import SlotCache
from alignzoo.generate.choose import Row

_WORTH_SHARING = 0.25
"""Part of a prefill's tokens that must be saved for neighbours' common beginnings to be processed once."""


def shared_columns(prompts: Sequence[Sequence[int]], prefix: int) -> int:
    """The number of first tokens that is best processed once for all neighbours that have them in common.

    Args:
        prompts: those with the same beginning next to each other.
        prefix: tokens that all begin with; the answer if no more are worth it.
    """
    most = min(map(len, prompts)) - 1
    alike = sorted((min(shared_length(a, b), most) for a, b in pairwise(prompts)), reverse=True)
    saved, columns = max(((size - prefix) * count, size) for count, size in enumerate([prefix, *alike]))
    return columns if saved > _WORTH_SHARING * sum(len(prompt) - prefix for prompt in prompts) else prefix


class Slots:
    """The rows of one model that are in generation.

    Args:
        model: without adapters' wrapper, as :func:`~alignzoo.generate.loop.steps_alone` accepts it.
        prefix: tokens that all prompts begin with; they are processed once.
        shares: whether those that only some prompts begin with may be processed once, too.
    """

    def __init__(self, model: Any, prefix: Sequence[int] = (), shares: bool = False) -> None:
        self.rows: list[Row] = []
        self.prefix = list(prefix)
        self._shares = shares
        self._joining = 0
        self._model = model
        self._cache: SlotCache | None = None
        self._kept = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self._head: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def prefill(self, rows: Sequence[Row]) -> tuple[torch.Tensor, DynamicCache]:
        """Logits (rows, vocabulary) after each row's tokens, and their cache."""
        prompts = [row.prompt + row.new for row in rows]
        cache, start = self._begun(prompts)
        self._joining = start
        rests = [prompt[start:] for prompt in prompts]
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
        self._cache.join(cache, [row.length - 1 for row in rows], self._joining)
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

    def _begun(self, prompts: Sequence[list[int]]) -> tuple[DynamicCache, int]:
        """A cache with the first tokens of every prompt, and how many these are."""
        prefix = len(self.prefix)
        size = shared_columns(prompts, prefix) if self._shares else prefix
        if size == prefix:
            return self._prefix_cache(len(prompts)), prefix
        beginnings: list[list[int]] = []
        places = []
        for prompt in prompts:
            if not beginnings or prompt[:size] != beginnings[-1]:
                beginnings.append(prompt[:size])
            places.append(len(beginnings) - 1)
        cache = self._prefix_cache(len(beginnings))
        ids = torch.tensor(beginnings)[:, prefix:]
        self._forward(ids, torch.arange(prefix, size).expand_as(ids), None, cache)
        cache.batch_select_indices(torch.tensor(places, device=self._model.device))
        return cache, size

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
