"""Keys and values of rows that come and go, in buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE_COLUMNS = 32
"""Steps at least between two moves of all rows to the left."""


class _Layer(DynamicLayer):
    """One layer of a :class:`SlotCache`; ``keys`` and ``values`` are views of the buffers' used part."""

    def __init__(self, slots: SlotCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._slots = slots
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        # Zeros: what is masked must still be finite.
        self.buffers = [
            like.new_zeros(slots.capacity, like.shape[1], slots.columns, like.shape[3]) for like in (keys, values)
        ]

    def view(self, new: int = 0) -> None:
        """Look at the used part, and ``new`` columns after it."""
        slots = self._slots
        self.keys, self.values = (buffer[: slots.rows, :, slots.start : slots.end + new] for buffer in self.buffers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns in place."""
        self.view(new := key_states.shape[-2])
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, -new:] = key_states
        self.values[:, :, -new:] = value_states
        return self.keys, self.values


class SlotCache(Cache):
    """A cache of ``capacity`` rows; each row's tokens end at the same column ``end``, and begin where they may.

    Args:
        capacity: most rows.
        longest: most tokens of a row.
    """

    layers: list[Any]

    def __init__(self, capacity: int, longest: int) -> None:
        self.layers: list[Any]
        super().__init__(layers=[])
        self.capacity = capacity
        self.columns = longest + SPARE_COLUMNS
        self.rows = self.start = self.end = 0
        self.begins: list[int] = []

    def join(self, made: Cache, lengths: Sequence[int], prefix: int) -> None:
        """Take in the rows of a prefill.

        Args:
            made: the prefill's cache: ``prefix`` columns, padding, and the rest of each prompt at the right.
            lengths: tokens of each prompt. No longer than the longest row in here, if there is one.
        """
        if not self.layers:
            self.layers = [_Layer(self, layer.keys, layer.values) for layer in made.layers]
        if not self.rows:
            self.start, self.end = 0, max(lengths)
        first, self.rows = self.rows, self.rows + len(lengths)
        self.begins += [self.end - length for length in lengths]
        for layer, source in zip(self.layers, made.layers, strict=True):
            for buffer, states in zip(layer.buffers, (source.keys, source.values), strict=True):
                self._take(buffer[first : self.rows], states, lengths, prefix)
        self._settle()

    def _take(self, slots: torch.Tensor, states: torch.Tensor, lengths: Sequence[int], prefix: int) -> None:
        """Copy ``states`` (rows, heads, columns, features) of one layer, without the padding."""
        width = states.shape[2]
        if min(lengths) == width:
            slots[:, :, self.end - width : self.end] = states
            return
        for slot, row, length in zip(slots, states, lengths, strict=True):
            slot[:, self.end - length : self.end - length + prefix] = row[:, :prefix]
            slot[:, self.end - length + prefix : self.end] = row[:, width - length + prefix :]

    def grown(self) -> None:
        """A forward pass has written a column."""
        self.end += 1
        if self.end == self.columns:
            self._move()

    def leave(self, holes: Sequence[int], movers: Sequence[int], rows: int) -> None:
        """Keep ``rows`` rows: those at ``movers`` (all beyond) take the places ``holes`` (all within)."""
        if holes:
            for buffer in self._buffers():
                used = buffer[:, :, self.start : self.end]
                used[list(holes)] = used[list(movers)]
            for hole, mover in zip(holes, movers, strict=True):
                self.begins[hole] = self.begins[mover]
        self.rows = rows
        del self.begins[rows:]
        self._settle()

    def positions(self) -> torch.Tensor:
        """(rows, 1): each row's position of the new column."""
        return self.end - torch.tensor(self.begins)[:, None]

    def mask(self) -> torch.Tensor | None:
        """(rows, columns in use and a new one): which of them belong to the row; None for all."""
        if self.begins.count(self.start) == self.rows:
            return None
        return torch.arange(self.start, self.end + 1) >= torch.tensor(self.begins)[:, None]

    def _settle(self) -> None:
        self.start = min(self.begins, default=0)
        for layer in self.layers:
            layer.view()

    def _move(self) -> None:
        """Move all rows to the left end of the buffers."""
        for buffer in self._buffers():
            buffer[: self.rows, :, : self.end - self.start] = buffer[: self.rows, :, self.start : self.end].clone()
        self.begins = [begin - self.start for begin in self.begins]
        self.end -= self.start
        self._settle()

    def _buffers(self) -> list[torch.Tensor]:
        return [buffer for layer in self.layers for buffer in layer.buffers]
