"""Tokenised rows, each a prompt with its responses, as one right-padded batch of tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alignzoo.contract.responses import KL, POLICY
from alignzoo.data.pack import Pack, pack
from alignzoo.data.shapes import SINGLE, Shape, label_of
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from alignzoo.data.parts import Scores

_NEEDED = ("row_id", "prompt_ids", "response_ids")
_OPTIONAL = ("label", "safe", "score", "group")


@dataclass(frozen=True)
class TokenBatch:
    """B rows with R responses in total, as R right-padded sequences of length L: prompt and response.

    The responses of row 0 come first, then those of row 1, and so on; within a row the policy's responses, best first
    if they are ordered, then the mismatched ones (KL). Masks come from lengths, never from token ids: a pad token that
    is also the EOS must not mask a real EOS.
    """

    input_ids: Tensor  # (R, L) int64
    attention_mask: Tensor  # (R, L) int64, 1 at real tokens
    response_mask: Tensor  # (R, L) bool, True at response tokens, EOS included
    row_ids: Tensor  # (B,) int64
    prompt_lengths: Tensor  # (B,) int64, tokens
    lengths: Tensor  # (R,) int64, response tokens
    sizes: tuple[int, ...]  # number of responses in each of the B rows, on the host
    prompt: Tensor  # (R,) int64, row of each response
    labels: Tensor  # (R,) int64: +1 desirable, -1 undesirable, 0 unknown
    ranks: Tensor  # (R,) int64, 0 is the best of its row; -1 if unordered
    roles: Tensor | None = None  # (R,) int64, POLICY or KL; None: all are POLICY
    scores: Tensor | None = None  # (R,) fp32, higher is better; 0 for KL responses
    safe: Tensor | None = None  # (R,) fp32, 1 safe, 0 unsafe, NaN unknown; 0 for KL responses
    groups: tuple[str, ...] | None = None  # B names
    guide_tokens: Tensor | None = None  # (R, T) fp32 log-probs under the model --guide, 0 after a response's end
    contrast_tokens: Tensor | None = None  # the same under --contrast
    paired: bool = False  # pairs without KL responses: two per row, the better one first
    pack: Pack | None = None  # the same rows packed into one; only of right-padded ones

    @property
    def rows(self) -> int:
        """B."""
        return len(self.sizes)

    @property
    def responses(self) -> int:
        """R."""
        return sum(self.sizes)

    @property
    def tokens(self) -> int:
        """Non-padding tokens, a prompt counted once per response."""
        if self.pack is not None:  # known on the host, without a device synchronisation
            return sum(len(s.responses) * s.prompt + sum(s.responses) for s in self.pack.segments)
        return int(self.prompt_lengths[self.prompt].sum() + self.lengths.sum())

    def content(self) -> str:
        """A hash of all its fields."""
        content = hashlib.sha256()
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(value, Tensor):
                content.update(repr((value.dtype, value.shape)).encode() + value.cpu().numpy().tobytes())
            else:
                content.update(repr(value.segments if isinstance(value, Pack) else value).encode())
        return content.hexdigest()

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        movable = {name: v for name, v in values.items() if isinstance(v, (Tensor, Pack))}
        aside = torch.device(device).type != "cpu"  # copies from pinned memory are asynchronous
        moved: dict[str, Any] = {name: v.to(device, non_blocking=aside) for name, v in movable.items()}
        return replace(self, **moved)

    def row(self, i: int, most: int | None = None, *, without: int = 0) -> TokenBatch:
        """Row ``i`` alone, its tokens only: all, or at ``most`` this many of the prompt's end and of each response.

        Args:
            without: how many of its first responses to leave out, fewer than it has.
        """
        first = sum(self.sizes[:i])
        own = slice(first + without, first + self.sizes[i])
        prompt, longest = int(self.prompt_lengths[i]), int(self.lengths[own].max())
        before, after = (prompt, longest) if most is None else (min(prompt, most), min(longest, most))
        tokens = slice(prompt - before, prompt + after)
        return TokenBatch(
            input_ids=self.input_ids[own, tokens],
            attention_mask=self.attention_mask[own, tokens],
            response_mask=self.response_mask[own, tokens],
            row_ids=self.row_ids[i : i + 1],
            prompt_lengths=self.prompt_lengths[i : i + 1].clamp(max=before),
            lengths=self.lengths[own].clamp(max=after),
            sizes=(self.sizes[i] - without,),
            prompt=self.prompt[own] - i,
            labels=self.labels[own],
            ranks=self.ranks[own],
            roles=None if self.roles is None else self.roles[own],
            scores=None if self.scores is None else self.scores[own],
            safe=None if self.safe is None else self.safe[own],
            groups=None if self.groups is None else self.groups[i : i + 1],
            paired=self.paired and not without,
        )

    def pinned(self) -> TokenBatch:
        """The same batch in pinned memory, for asynchronous copies to a GPU."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pinned: dict[str, Any] = {n: v.pin_memory() for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, pack=None if self.pack is None else self.pack.pinned(), **pinned)


def collate(
    rows: Sequence[dict[str, Any]], pad_id: int, *, shape: Shape, kl: Sequence[Sequence[Sequence[int]]] | None = None
) -> TokenBatch:
    """Rows of a prepared dataset as a batch.

    Args:
        rows: ``row_id``, ``prompt_ids``, ``response_ids`` and, if the data has them, ``label``, ``safe``, ``score``,
            ``group``.
        shape: of the dataset; labels and ranks follow from it.
        kl: token ids of each row's mismatched responses.

    Raises:
        DataError: an empty prompt or response, whose log-prob would silently be 0 or NaN.
    """
    own = [row["response_ids"] for row in rows]
    replies = own if kl is None else [[*of_row, *others] for of_row, others in zip(own, kl, strict=True)]
    _refuse_empty(rows, replies)
    sizes = tuple(map(len, replies))
    prompts = [row["prompt_ids"] for row in rows]
    prompt = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(sizes))
    prompt_lengths = torch.tensor(list(map(len, prompts)))
    padded = [[*ids, *reply] for ids, of_row in zip(prompts, replies, strict=True) for reply in of_row]
    lengths = torch.tensor(list(map(len, padded)))
    longest = int(lengths.max())
    positions = torch.arange(longest)
    real = positions < lengths[:, None]
    before = prompt_lengths[prompt]
    behind = [0] * len(rows) if kl is None else list(map(len, kl))
    return TokenBatch(
        input_ids=torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids in padded]),
        attention_mask=real.long(),
        response_mask=real & (positions >= before[:, None]),
        row_ids=torch.tensor([row["row_id"] for row in rows]),
        prompt_lengths=prompt_lengths,
        lengths=lengths - before,
        sizes=sizes,
        prompt=prompt,
        labels=_per_response([_labels(row, shape) for row in rows], behind, fill=0),
        ranks=_per_response([_ranks(row, shape) for row in rows], behind, fill=-1),
        roles=None if kl is None else _per_response([[POLICY] * len(of_row) for of_row in own], behind, fill=KL),
        scores=_per_response([row["score"] for row in rows], behind, fill=0.0) if "score" in rows[0] else None,
        safe=_per_response([_flags(row) for row in rows], behind, fill=0.0) if "safe" in rows[0] else None,
        groups=tuple(row["group"] for row in rows) if "group" in rows[0] else None,
        paired=kl is None and shape == "pairs",
        pack=pack(prompts, replies),
    )


def _refuse_empty(rows: Sequence[dict[str, Any]], replies: Sequence[Sequence[Sequence[int]]]) -> None:
    for row, of_row in zip(rows, replies, strict=True):
        if len(row["prompt_ids"]) == 0:
            raise DataError(f"row {row['row_id']}: the prompt has no tokens")
        if len(of_row) == 0:
            raise DataError(f"row {row['row_id']}: there are no responses")
        for j, reply in enumerate(of_row):
            if len(reply) == 0:
                raise DataError(f"row {row['row_id']}: response {j + 1} of {len(of_row)} has no tokens")


def _labels(row: dict[str, Any], shape: Shape) -> list[int]:
    return [row["label"]] if shape == "unpaired" else [label_of(shape, rank) for rank in _ranks(row, shape)]


def _flags(row: dict[str, Any]) -> list[float]:
    flags = row["safe"] or [None] * len(row["response_ids"])
    return [math.nan if flag is None else float(flag) for flag in flags]


def _ranks(row: dict[str, Any], shape: Shape) -> list[int]:
    return [-1] if shape in SINGLE else list(range(len(row["response_ids"])))


def _per_response(values: Sequence[Sequence[float]], behind: Sequence[int], *, fill: float) -> Tensor:
    """``(R,)``: a value per response of each row, then ``fill`` for the row's KL responses."""
    every = chain.from_iterable([*of_row, *[fill] * more] for of_row, more in zip(values, behind, strict=True))
    return torch.tensor(list(every), dtype=torch.float32 if isinstance(fill, float) else torch.int64)


def padded_texts(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Token sequences as right-padded batches of at most this many tokens including padding, or of one sequence.

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
    """The dataset without the columns that batches do not need; call it once before asking for many batches."""
    present = [name for name in (*_NEEDED, *_OPTIONAL) if name in dataset.column_names]
    return dataset if set(present) == set(dataset.column_names) else dataset.select_columns(present)


def batches_of(
    dataset: Dataset,
    indices: Sequence[int],
    micro_batch_size: int,
    pad_id: int,
    *,
    shape: Shape,
    scores: Scores | None = None,
    partners: np.ndarray | None = None,
) -> Iterator[TokenBatch]:
    """The rows ``indices`` of a prepared dataset, in order, as batches of at most ``micro_batch_size`` rows.

    Args:
        shape: of the dataset.
        scores: scores of the responses, replacing the dataset's own.
        partners: ``(N,)``, for each row of the dataset the row whose responses serve as its mismatched (KL) responses,
            as many as it has itself; None if no method needs them. See :mod:`alignzoo.data.mismatch`.
    """
    remaining = iter(indices)
    groups = iter(lambda: list(islice(remaining, micro_batch_size)), [])
    yield from grouped_batches(dataset, groups, pad_id, shape=shape, scores=scores, partners=partners)


def grouped_batches(
    dataset: Dataset,
    groups: Iterable[Sequence[int]],
    pad_id: int,
    *,
    shape: Shape,
    scores: Scores | None = None,
    partners: np.ndarray | None = None,
) -> Iterator[TokenBatch]:
    """One batch per group of rows; otherwise as :func:`batches_of`."""
    tokens = batch_columns(dataset)
    for rows in groups:
        columns = tokens[list(rows)]
        if scores is not None:
            columns["score"] = scores.of(rows)
        kl = None
        if partners is not None:
            others = tokens[partners[list(rows)].tolist()]["response_ids"]
            kl = [
                list(islice(cycle(replies), len(own)))
                for own, replies in zip(columns["response_ids"], others, strict=True)
            ]
        listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        yield collate(listed, pad_id, shape=shape, kl=kl)
