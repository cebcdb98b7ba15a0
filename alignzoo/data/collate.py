"""Tokenised pairs as one right-padded batch of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignzoo.data.pack import Pack, pack
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from alignzoo.data.parts import Scores

_NEEDED = ("pair_id", "prompt_ids", "chosen_ids", "rejected_ids")
_OPTIONAL = ("chosen_score", "rejected_score", "group")


@dataclass(frozen=True)
class TokenBatch:
    """B pairs as 2B sequences of length L, right-padded: the chosen ones first, then the rejected ones in that order.

    Masks come from lengths, never from token ids: a pad token that is also the EOS must not erase a real EOS.
    """

    input_ids: Tensor  # (2B, L) int64
    attention_mask: Tensor  # (2B, L) int64, 1 at real tokens
    response_mask: Tensor  # (2B, L) bool, True at reply tokens, EOS included
    pair_ids: Tensor  # (B,) int64
    prompt_lengths: Tensor  # (B,) int64, tokens
    chosen_lengths: Tensor  # (B,) int64, reply tokens
    rejected_lengths: Tensor  # (B,) int64, reply tokens
    chosen_scores: Tensor | None = None  # (B,) fp32, higher is better
    rejected_scores: Tensor | None = None  # (B,) fp32
    groups: tuple[str, ...] | None = None  # B names
    pack: Pack | None = None  # the same pairs in one row

    @property
    def pairs(self) -> int:
        """B."""
        return len(self.pair_ids)

    @property
    def tokens(self) -> int:
        """Tokens that are not padding, prompts counted once per side."""
        if self.pack is not None:  # known on the host, so that a device need not be waited for
            return sum(2 * s.prompt + s.chosen + s.rejected for s in self.pack.segments)
        return int((2 * self.prompt_lengths + self.chosen_lengths + self.rejected_lengths).sum())

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        movable = {name: v for name, v in values.items() if isinstance(v, (Tensor, Pack))}
        aside = torch.device(device).type != "cpu"  # pinned memory is fetched while the host goes on
        moved: dict[str, Any] = {name: v.to(device, non_blocking=aside) for name, v in movable.items()}
        return replace(self, **moved)

    def pair(self, i: int, most: int | None = None) -> TokenBatch:
        """Pair ``i`` alone, its tokens only: all, or at ``most`` so many of the prompt's end and of each response."""
        prompt = int(self.prompt_lengths[i])
        longest = int(torch.maximum(self.chosen_lengths[i], self.rejected_lengths[i]))
        before, after = (prompt, longest) if most is None else (min(prompt, most), min(longest, most))
        rows, tokens = [i, self.pairs + i], slice(prompt - before, prompt + after)
        return TokenBatch(
            input_ids=self.input_ids[rows, tokens],
            attention_mask=self.attention_mask[rows, tokens],
            response_mask=self.response_mask[rows, tokens],
            pair_ids=self.pair_ids[i : i + 1],
            prompt_lengths=self.prompt_lengths[i : i + 1].clamp(max=before),
            chosen_lengths=self.chosen_lengths[i : i + 1].clamp(max=after),
            rejected_lengths=self.rejected_lengths[i : i + 1].clamp(max=after),
        )

    def pinned(self) -> TokenBatch:
        """The same batch in memory that a GPU fetches from while the host goes on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pinned: dict[str, Any] = {n: v.pin_memory() for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, pack=None if self.pack is None else self.pack.pinned(), **pinned)


def collate(rows: Sequence[dict[str, Any]], pad_id: int) -> TokenBatch:
    """Rows of a prepared dataset as a batch.

    Raises:
        DataError: a pair with an empty prompt or reply; its log-probability would be 0 or NaN, not an error.
    """
    for row in rows:
        for side in ("prompt", "chosen", "rejected"):
            if len(row[f"{side}_ids"]) == 0:
                raise DataError(f"Pair {row['pair_id']}: {side}_ids is empty")
    replies = [row[f"{side}_ids"] for side in ("chosen", "rejected") for row in rows]
    prompts = [row["prompt_ids"] for row in rows] * 2
    prompt_lengths = torch.tensor([len(prompt) for prompt in prompts])
    lengths = prompt_lengths + torch.tensor([len(reply) for reply in replies])
    longest = int(lengths.max())
    padded = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    positions = torch.arange(longest)
    real = positions < lengths[:, None]
    size = len(rows)
    pairs = [prompts[:size], replies[:size], replies[size:]]
    return TokenBatch(
        input_ids=torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids in padded]),
        attention_mask=real.long(),
        response_mask=real & (positions >= prompt_lengths[:, None]),
        pair_ids=torch.tensor([row["pair_id"] for row in rows]),
        prompt_lengths=prompt_lengths[:size],
        chosen_lengths=(lengths - prompt_lengths)[:size],
        rejected_lengths=(lengths - prompt_lengths)[size:],
        chosen_scores=_scores(rows, "chosen_score"),
        rejected_scores=_scores(rows, "rejected_score"),
        groups=tuple(row["group"] for row in rows) if "group" in rows[0] else None,
        pack=pack(*pairs),
    )


def _scores(rows: Sequence[dict[str, Any]], column: str) -> Tensor | None:
    return torch.tensor([row[column] for row in rows], dtype=torch.float32) if column in rows[0] else None


def padded_texts(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Token sequences as right-padded batches of at most so many tokens, padding included, or of one sequence.

    Yields indices of B sequences of similar length, their ids ``(B, L)`` and their mask ``(B, L)``, 1 at real tokens.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    start = 0
    while start < len(order):
        size = 1
        while start + size < len(order) and (size + 1) * len(sequences[order[start + size]]) <= tokens:
            size += 1
        chosen = order[start : start + size]
        width = len(sequences[chosen[-1]])
        ids = torch.zeros(size, width, dtype=torch.long)
        mask = torch.zeros(size, width, dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : len(sequences[i])] = torch.as_tensor(sequences[i])
            mask[row, : len(sequences[i])] = 1
        yield chosen, ids, mask
        start += size


def batch_columns(dataset: Dataset) -> Dataset:
    """The dataset without the columns that batches do not need; whoever asks for many batches calls it once."""
    present = [name for name in (*_NEEDED, *_OPTIONAL) if name in dataset.column_names]
    return dataset if set(present) == set(dataset.column_names) else dataset.select_columns(present)


def batches_of(
    dataset: Dataset, indices: Sequence[int], micro_batch_size: int, pad_id: int, *, scores: Scores | None = None
) -> Iterator[TokenBatch]:
    """The rows ``indices`` of a prepared dataset, in order, as batches of at most ``micro_batch_size`` pairs.

    Args:
        scores: those of the dataset's rows, in the place of scores that the dataset itself has.
    """
    remaining = iter(indices)
    groups = iter(lambda: list(islice(remaining, micro_batch_size)), [])
    yield from grouped_batches(dataset, groups, pad_id, scores)


def grouped_batches(
    dataset: Dataset, groups: Iterable[Sequence[int]], pad_id: int, scores: Scores | None = None
) -> Iterator[TokenBatch]:
    """One batch per group of rows; otherwise as :func:`batches_of`."""
    tokens = batch_columns(dataset)
    for rows in groups:
        columns = tokens[list(rows)]
        if scores is not None:
            columns |= {
                "chosen_score": scores.chosen[rows].tolist(),
                "rejected_score": scores.rejected[rows].tolist(),
            }
        yield collate(
            [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)], pad_id
        )
