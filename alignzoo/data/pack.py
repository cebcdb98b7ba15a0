"""Packs data rows into one row of tokens: each prompt once, followed by its responses, without padding.

A prompt with k responses is the segment ``[prompt | r1 | … | rk]``; positions restart at the prompt's end for each
response, which attends to the prompt and itself but to no other response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.data.sequences import Sequences

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from alignzoo.data.collate import TokenBatch

Ids = Sequence[int] | np.ndarray
BLOCK = 128
"""Positions per FlexAttention block."""


@dataclass(frozen=True)
class Segment:
    """Start of a prompt and its responses in the row, and the number of tokens of the prompt and each response."""

    start: int
    prompt: int
    responses: tuple[int, ...]

    @property
    def end(self) -> int:
        """Start of the next segment."""
        return self.start + self.prompt + sum(self.responses)

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest response."""
        return self.prompt + max(self.responses)

    def prompt_place(self) -> slice:
        """The prompt's positions."""
        return slice(self.start, self.start + self.prompt)

    def places(self) -> tuple[slice, ...]:
        """Each response's positions."""
        found, begin = [], self.start + self.prompt
        for length in self.responses:
            found.append(slice(begin, begin + length))
            begin += length
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Pack:
    """B prompts with R responses in total as one row of T tokens, K of them response tokens.

    Attributes:
        input_ids, position_ids: ``(1, T)`` int64.
        predicting: ``(K,)`` int64, the position in the row whose output predicts a response token.
        targets: ``(K,)`` int64, that token.
        rows: ``(K,)`` int64, index of its response among the R.
        columns: ``(K,)`` int64, its index in that response.
        segments: positions of the B prompts and their responses.
        sequences: the same for variable-length attention.
    """

    input_ids: Tensor
    position_ids: Tensor
    predicting: Tensor
    targets: Tensor
    rows: Tensor
    columns: Tensor
    segments: tuple[Segment, ...]
    sequences: Sequences
    _masks: dict[object, Any] = field(default_factory=dict, repr=False)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and response."""
        return max(segment.longest for segment in self.segments)

    @property
    def longest_response(self) -> int:
        """Tokens of the longest response."""
        return max(max(segment.responses) for segment in self.segments)

    @property
    def part_sizes(self) -> list[int]:
        """Tokens of each prompt and each response, in the row's order."""
        return [size for segment in self.segments for size in (segment.prompt, *segment.responses)]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Pack:
        """The same pack with its tensors on ``device``."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> Pack:
        """The same pack in pinned memory, for asynchronous copies to a GPU."""
        return self._with(Tensor.pin_memory)

    def _with(self, done: Callable[[Tensor], Tensor]) -> Pack:
        names = ("input_ids", "position_ids", "predicting", "targets", "rows", "columns")
        changed: dict[str, Any] = {name: done(getattr(self, name)) for name in names}
        return replace(self, **changed, sequences=self.sequences.map(done), _masks={})

    def first_mask(self, i: int, window: int | None) -> Tensor | None:
        """``(S, S)`` bool mask of the prompt and first response of segment ``i``; None if it is simply causal."""
        segment = self.segments[i]
        size = segment.prompt + segment.responses[0]
        if window is None or size <= window:
            return None
        return self._made(("first", size, window), lambda at: _near(at[:size], at[:size], window))

    def further_mask(self, i: int, j: int, window: int | None) -> Tensor:
        """``(N, P + N)`` bool mask of response ``j`` > 0 of segment ``i``, of N tokens, over the prompt and itself."""
        prompt, length = self.segments[i].prompt, self.segments[i].responses[j]
        size = prompt + length
        bound = None if window is None or size <= window else window
        return self._made(("further", prompt, length, bound), lambda at: _near(at[prompt:size], at[:size], bound))

    def dense_mask(self, window: int | None = None) -> Tensor:
        """``(T, T)`` bool mask of the whole row."""

        def made(_at: Tensor) -> Tensor:
            allowed = torch.zeros(self.input_ids.shape[1], self.input_ids.shape[1], dtype=torch.bool)
            at = self.position_ids[0].cpu()
            for segment in self.segments:
                prompt = segment.prompt_place()
                allowed[prompt, prompt] = _near(at[prompt], at[prompt], window)
                for response in segment.places():
                    allowed[response, prompt] = _near(at[response], at[prompt], window)
                    allowed[response, response] = _near(at[response], at[response], window)
            return allowed.to(self.input_ids.device)

        return self._made(("dense", window), made)

    def block_mask(self, window: int | None = None) -> BlockMask:
        """The same for FlexAttention, which works on blocks of keys for each block of queries."""
        from torch.nn.attention.flex_attention import BlockMask

        def made(_at: Tensor) -> BlockMask:
            device, size = self.input_ids.device, self.input_ids.shape[1]
            of_segment = _spread(range(len(self.segments)), [s.end - s.start for s in self.segments]).to(device)
            part = _spread([j for s in self.segments for j in range(1 + len(s.responses))], self.part_sizes).to(device)
            at = self.position_ids[0]

            def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                distance = at[query] - at[key]
                seen = (of_segment[query] == of_segment[key]) & (distance >= 0)
                seen = seen & ((part[key] == 0) | (part[query] == part[key]))
                return seen if window is None else seen & (distance < window)

            count, indices = self._blocks(BLOCK)
            return BlockMask.from_kv_blocks(
                count.to(device), indices.to(device), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(size, size)
            )

        return self._made(("blocks", window), made)

    def _blocks(self, block: int) -> tuple[Tensor, Tensor]:
        """For each block of queries, the number of key blocks that its segments reach ``(1, 1, Q)``, and their indices,
        followed by the others ``(1, 1, Q, Q)``; computed on the host from the segments, without a full mask."""
        blocks = -(-self.input_ids.shape[1] // block)
        reached: list[set[int]] = [set() for _ in range(blocks)]
        for s in self.segments:
            for query in range(s.start // block, (s.end - 1) // block + 1):
                reached[query] |= set(range(s.start // block, query + 1))
        rows = [[*sorted(seen), *(key for key in range(blocks) if key not in seen)] for seen in reached]
        counts = torch.tensor([len(seen) for seen in reached], dtype=torch.int32)
        return counts[None, None], torch.tensor(rows, dtype=torch.int32)[None, None]

    def forget_masks(self) -> None:
        """Release the cached masks; they are recomputed on demand."""
        self._masks.clear()

    def _made(self, key: object, make: Callable[[Tensor], Any]) -> Any:
        """The result of ``make`` on the positions, computed once per pack."""
        if key not in self._masks:
            self._masks[key] = make(torch.arange(self.longest, device=self.input_ids.device))
        return self._masks[key]


def _near(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """True for keys not after the query and less than ``window`` positions before it."""
    distance = queries[:, None] - keys[None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _spread(values: Sequence[int], times: Sequence[int]) -> Tensor:
    """Each value repeated the given number of times."""
    return torch.repeat_interleave(torch.tensor(values), torch.tensor(times))


def pack(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> Pack:
    """B prompts, each with one or more responses, as one row; every sequence has at least one token."""
    segments: list[Segment] = []
    ids, positions, predicting, targets, rows, columns = (list[Ids]() for _ in range(6))
    row = 0
    for prompt, replies in zip(prompts, responses, strict=True):
        start = segments[-1].end if segments else 0
        segment = Segment(start, len(prompt), tuple(map(len, replies)))
        segments.append(segment)
        ids += [prompt, *replies]
        positions.append(np.arange(len(prompt)))
        last = start + len(prompt) - 1  # the prompt's last token predicts the first token of every response
        for reply, place in zip(replies, segment.places(), strict=True):
            positions.append(np.arange(len(prompt), len(prompt) + len(reply)))
            predicting += [[last], np.arange(place.start, place.stop - 1)]
            targets.append(reply)
            rows.append(np.full(len(reply), row))
            columns.append(np.arange(len(reply)))
            row += 1

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
        Sequences.of(segments),
    )


def pack_of(batch: TokenBatch) -> Pack:
    """The pack of a batch: the one it was collated with, or a new one from its rows."""
    if batch.pack is not None:
        return batch.pack
    prompts, replies = [], []
    for ids, real, response in zip(
        batch.input_ids.cpu(), batch.attention_mask.cpu().bool(), batch.response_mask.cpu(), strict=True
    ):
        prompts.append(ids[real & ~response].tolist())
        replies.append(ids[response].tolist())
    first = list(accumulate(batch.sizes, initial=0))
    of_rows = [replies[begin:end] for begin, end in pairwise(first)]
    return pack([prompts[begin] for begin in first[:-1]], of_rows).to(batch.input_ids.device)
