"""Pairs in one row: each prompt once, both responses after it, no padding.

A pair is the segment ``[prompt | chosen | rejected]``; positions start again at the prompt's end for the rejected
response, which sees the prompt and itself, and not the chosen one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from alignzoo.data.collate import TokenBatch

Ids = Sequence[int] | np.ndarray
BLOCK = 128
"""Positions in a block of FlexAttention."""


@dataclass(frozen=True)
class Segment:
    """One pair's place in the row, and the tokens of its three parts."""

    start: int
    prompt: int
    chosen: int
    rejected: int

    @property
    def middle(self) -> int:
        """Where the rejected response begins."""
        return self.start + self.prompt + self.chosen

    @property
    def end(self) -> int:
        """Where the next pair begins."""
        return self.middle + self.rejected

    def places(self) -> tuple[slice, slice, slice]:
        """Where the prompt, the prompt with the chosen response, and the rejected response lie."""
        return slice(self.start, self.start + self.prompt), slice(self.start, self.middle), slice(self.middle, self.end)


@dataclass(frozen=True, eq=False)
class Pack:
    """B pairs as one row of T tokens with K response tokens.

    Attributes:
        input_ids, position_ids: ``(1, T)`` int64.
        predicting: ``(K,)`` int64, the position in the row whose output predicts a response token.
        targets: ``(K,)`` int64, that token.
        rows: ``(K,)`` int64, whose token it is: ``i`` for the chosen response of pair i, ``B + i`` for the rejected.
        columns: ``(K,)`` int64, its place in that response.
        segments: the pairs' places.
    """

    input_ids: Tensor
    position_ids: Tensor
    predicting: Tensor
    targets: Tensor
    rows: Tensor
    columns: Tensor
    segments: tuple[Segment, ...]
    _masks: dict[object, Any] = field(default_factory=dict, repr=False)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and response."""
        return max(s.prompt + max(s.chosen, s.rejected) for s in self.segments)

    @property
    def longest_response(self) -> int:
        """Tokens of the longest response."""
        return max(max(s.chosen, s.rejected) for s in self.segments)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Pack:
        """The same pack with its tensors on ``device``."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> Pack:
        """The same pack in memory that a GPU fetches from while the host goes on."""
        return self._with(Tensor.pin_memory)

    def _with(self, done: Callable[[Tensor], Tensor]) -> Pack:
        names = ("input_ids", "position_ids", "predicting", "targets", "rows", "columns")
        changed: dict[str, Any] = {name: done(getattr(self, name)) for name in names}
        return replace(self, **changed, _masks={})

    def first_mask(self, i: int, window: int | None) -> Tensor | None:
        """``(S, S)`` bool of prompt and chosen of segment ``i``; None where plain causality is all there is to it."""
        segment = self.segments[i]
        size = segment.prompt + segment.chosen
        if window is None or size <= window:
            return None
        return self._made(("first", size, window), lambda at: _near(at[:size], at[:size], window))

    def second_mask(self, i: int, window: int | None) -> Tensor:
        """``(R, P + R)`` bool: what the rejected response of segment ``i`` sees of the prompt and of itself."""
        segment = self.segments[i]
        size = segment.prompt + segment.rejected
        bound = None if window is None or size <= window else window
        key = ("second", segment.prompt, segment.rejected, bound)
        return self._made(key, lambda at: _near(at[segment.prompt : size], at[:size], bound))

    def dense_mask(self, window: int | None = None) -> Tensor:
        """``(T, T)`` bool of the whole row."""

        def made(_at: Tensor) -> Tensor:
            allowed = torch.zeros(self.input_ids.shape[1], self.input_ids.shape[1], dtype=torch.bool)
            at = self.position_ids[0].cpu()
            for s in self.segments:
                first, prompt, second = (
                    slice(s.start, s.middle),
                    slice(s.start, s.start + s.prompt),
                    slice(s.middle, s.end),
                )
                allowed[first, first] = _near(at[first], at[first], window)
                allowed[second, prompt] = _near(at[second], at[prompt], window)
                allowed[second, second] = _near(at[second], at[second], window)
            return allowed.to(self.input_ids.device)

        return self._made(("dense", window), made)

    def block_mask(self, window: int | None = None) -> BlockMask:
        """The same for FlexAttention, which looks at the blocks of keys that a block of queries reaches into."""
        from torch.nn.attention.flex_attention import BlockMask

        def made(_at: Tensor) -> BlockMask:
            device, size = self.input_ids.device, self.input_ids.shape[1]
            pairs = torch.repeat_interleave(
                torch.arange(len(self.segments)), torch.tensor([s.end - s.start for s in self.segments])
            ).to(device)
            parts = [part for s in self.segments for part in (s.prompt, s.chosen, s.rejected)]
            part = torch.repeat_interleave(torch.arange(len(parts)) % 3, torch.tensor(parts)).to(device)
            at = self.position_ids[0]

            def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                distance = at[query] - at[key]
                seen = (pairs[query] == pairs[key]) & (distance >= 0)
                seen = seen & ((part[key] == 0) | (part[query] == part[key]))
                return seen if window is None else seen & (distance < window)

            count, indices = self._blocks(BLOCK)
            return BlockMask.from_kv_blocks(
                count.to(device), indices.to(device), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(size, size)
            )

        return self._made(("blocks", window), made)

    def _blocks(self, block: int) -> tuple[Tensor, Tensor]:
        """For each block of queries, how many blocks of keys its pairs reach into ``(1, 1, Q)``, and which, the others
        after them ``(1, 1, Q, Q)``; made on the host from the segments, without a mask of the whole row."""
        blocks = -(-self.input_ids.shape[1] // block)
        reached: list[set[int]] = [set() for _ in range(blocks)]
        for s in self.segments:
            for query in range(s.start // block, (s.end - 1) // block + 1):
                reached[query] |= set(range(s.start // block, query + 1))
        rows = [[*sorted(seen), *(key for key in range(blocks) if key not in seen)] for seen in reached]
        counts = torch.tensor([len(seen) for seen in reached], dtype=torch.int32)
        return counts[None, None], torch.tensor(rows, dtype=torch.int32)[None, None]

    def forget_masks(self) -> None:
        """Let go of the masks that were made; they are recomputed when asked for."""
        self._masks.clear()

    def _made(self, key: object, make: Callable[[Tensor], Any]) -> Any:
        """What ``make`` gives of the positions, once per pack."""
        if key not in self._masks:
            self._masks[key] = make(torch.arange(self.longest, device=self.input_ids.device))
        return self._masks[key]


def _near(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """What is not after a query, and less than ``window`` positions before it."""
    distance = queries[:, None] - keys[None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def pack(prompts: Sequence[Ids], chosen: Sequence[Ids], rejected: Sequence[Ids]) -> Pack:
    """B pairs as one row; every sequence has at least one token."""
    segments: list[Segment] = []
    ids, positions, predicting, targets, rows, columns = (list[Ids]() for _ in range(6))
    for i, (p, c, r) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        start = segments[-1].end if segments else 0
        segment = Segment(start, len(p), len(c), len(r))
        segments.append(segment)
        ids += [p, c, r]
        positions += [np.arange(len(p) + len(c)), np.arange(len(p), len(p) + len(r))]
        last = start + len(p) - 1  # the prompt's last token predicts the first one of both responses
        predicting += [np.arange(last, segment.middle - 1), [last], np.arange(segment.middle, segment.end - 1)]
        targets += [c, r]
        rows += [np.full(len(c), i), np.full(len(r), len(prompts) + i)]
        columns += [np.arange(len(c)), np.arange(len(r))]

    def joined(parts: Sequence[Ids]) -> Tensor:
        return torch.from_numpy(np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]))

    return Pack(
        joined(ids)[None],
        joined(positions)[None],
        joined(predicting),
        joined(targets),
        joined(rows),
        joined(columns),
        tuple(segments),
    )


def pack_of(batch: TokenBatch) -> Pack:
    """The pack of a batch: the one that it was collated with, or one made of its rows."""
    if batch.pack is not None:
        return batch.pack
    prompts, replies = [], []
    for ids, real, response in zip(
        batch.input_ids.cpu(), batch.attention_mask.cpu().bool(), batch.response_mask.cpu(), strict=True
    ):
        prompts.append(ids[real & ~response].tolist())
        replies.append(ids[response].tolist())
    made = pack(prompts[: batch.pairs], replies[: batch.pairs], replies[batch.pairs :])
    return made.to(batch.input_ids.device)
