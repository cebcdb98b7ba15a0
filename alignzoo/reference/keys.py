"""The key of a reference log-prob: a hash of the tokens of a response and of its prompt.

It contains nothing else. Tokenizer, template and truncation matter only if they change token ids; labels, label noise,
the other responses to the prompt and the run's settings do not change keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.data.collate import TokenBatch

if TYPE_CHECKING:
    from datasets import Dataset

_WIDTH = 4  # bytes of a token id


@dataclass(frozen=True)
class RowKeys:
    """The keys of n rows, response after response: a row's own ones first, then its mismatched ones.

    Attributes:
        keys: ``(R, 2)`` int64.
        offsets: ``(n + 1,)`` int64, where the responses of each row begin, and R.
        prompts: ``(n,)`` int64, tokens of each prompt.
        lengths: ``(R,)`` int64, tokens of each response.
    """

    keys: np.ndarray
    offsets: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """``(n, 2)``: the key of each row's first response."""
        return self.keys[self.offsets[:-1]]

    @property
    def packed(self) -> np.ndarray:
        """``(n,)``: tokens of each prompt, counted once, and its responses."""
        return self.prompts + np.add.reduceat(self.lengths, self.offsets[:-1])

    @property
    def padded(self) -> np.ndarray:
        """``(n,)``: tokens of each row's sequences, prompt and response, padded to the longest of them."""
        longest = np.maximum.reduceat(self.lengths, self.offsets[:-1])
        return np.diff(self.offsets) * (self.prompts + longest)


def response_keys(prompt: memoryview, *responses: memoryview) -> bytes:
    """16 bytes per response that depend on its ids, on the prompt's, and on where the prompt ends.

    Args:
        prompt, responses: token ids as little-endian int32, in bytes.
    """
    start = hashlib.sha256(len(prompt).to_bytes(8, "little"))  # which processors compute faster than blake2
    start.update(prompt)
    keys = []
    for response in responses:
        whole = start.copy()
        whole.update(response)
        keys.append(whole.digest()[:16])
    return b"".join(keys)


def batch_keys(batch: TokenBatch) -> np.ndarray:
    """``(R, 2)`` int64: the keys of a batch's responses, in its order."""
    ids, real = batch.input_ids.cpu().numpy(), batch.attention_mask.cpu().numpy().astype(bool)
    sequences = (in_bytes(row[mask]) for row, mask in zip(ids, real, strict=True))
    found = bytearray()
    for size, prompt in zip(batch.sizes, batch.prompt_lengths.tolist(), strict=True):
        end = _WIDTH * prompt
        whole = list(islice(sequences, size))
        found += response_keys(whole[0][:end], *(tokens[end:] for tokens in whole))
    return as_keys(bytes(found))


def dataset_keys(dataset: Dataset, rows: np.ndarray, partners: np.ndarray | None = None) -> RowKeys:
    """The keys of the given rows ``(n,)`` of a prepared dataset, read from front to back whatever their order.

    Args:
        partners: ``(N,)`` the row whose responses are a row's mismatched ones (:mod:`alignzoo.data.mismatch`), as many
            as the row has of its own.
    """
    table = _Table.of(dataset)
    stored = table.stored(dataset, rows)
    counts = table.counts[stored]
    offsets = np.concatenate([[0], np.cumsum(counts * (1 if partners is None else 2))])
    keys, lengths = np.zeros((offsets[-1], 2), np.int64), np.zeros(offsets[-1], np.int64)
    prompts = np.zeros(len(rows), np.int64)
    sources = [(offsets[:-1], stored)]
    if partners is not None:
        sources.append((offsets[:-1] + counts, table.stored(dataset, partners[rows])))
    for first, source in sources:
        for group in table.groups(stored, source):
            content, prompts[group], sizes = table.keys(stored[group], source[group], counts[group])
            places = np.repeat(first[group], counts[group]) + _numbered(counts[group])
            keys[places], lengths[places] = as_keys(content), sizes
    return RowKeys(keys, offsets, prompts, lengths)


@dataclass(frozen=True)
class _Table:
    """The token ids of a prepared dataset as Arrow holds them, block after block; nothing is copied.

    Attributes:
        starts: ``(blocks + 1,)`` the first row of each block, and the number of rows.
        counts: ``(rows,)`` responses of each row.
    """

    blocks: list[_Block]
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> _Table:
        batches = dataset.data.select(["prompt_ids", "response_ids"]).to_batches()
        blocks = [_Block.of(*batch.columns) for batch in batches]
        counts = np.concatenate([np.diff(block.rows) for block in blocks])
        return cls(blocks, np.cumsum([0, *map(len, batches)]), counts.astype(np.int64))

    def stored(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """``(n,)``: where the table holds these rows of the dataset."""
        return rows if dataset._indices is None else dataset._indices.column(0).to_numpy()[rows].astype(np.int64)

    def groups(self, stored: np.ndarray, source: np.ndarray) -> list[np.ndarray]:
        """Places in ``stored`` of rows whose prompts share a block, as do the responses ``source``, in the table's
        order."""
        block = self._block_of(stored) * len(self.blocks) + self._block_of(source)
        order = np.lexsort((stored, block))
        return np.split(order, np.flatnonzero(np.diff(block[order])) + 1) if len(order) else []

    def keys(self, stored: np.ndarray, source: np.ndarray, counts: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
        """The keys of the prompts of one group with ``counts`` ``(n,)`` responses of ``source``, repeated where these
        are fewer; tokens of the prompts ``(n,)`` and of all responses ``(R,)``."""
        here, there = int(self._block_of(stored[:1])[0]), int(self._block_of(source[:1])[0])
        prompts, responses = self.blocks[here].prompts, self.blocks[there].responses
        first = self.blocks[there].rows[source - self.starts[there]]
        wanted = np.repeat(first, counts) + _numbered(counts) % np.repeat(self.counts[source], counts)
        begins, ends = prompts.bounds(stored - self.starts[here])
        bounds = responses.bounds(wanted)
        bytes_of = zip(*(bound.tolist() for bound in bounds), strict=True)
        found = bytearray()
        for begin, end, count in zip(begins.tolist(), ends.tolist(), counts.tolist(), strict=True):
            some = [responses.ids[start:stop] for start, stop in islice(bytes_of, count)]
            found += response_keys(prompts.ids[begin:end], *some)
        return bytes(found), (ends - begins) // _WIDTH, (bounds[1] - bounds[0]) // _WIDTH

    def _block_of(self, stored: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, stored, side="right") - 1


@dataclass(frozen=True)
class _Lists:
    """Lists of token ids, one behind the other.

    Attributes:
        offsets: ``(n + 1,)`` where each of them begins, in tokens.
    """

    ids: memoryview
    offsets: np.ndarray

    @classmethod
    def of(cls, lists: Any) -> _Lists:
        return cls(in_bytes(lists.values.to_numpy(zero_copy_only=False)), lists.offsets.to_numpy())

    def bounds(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where these lists begin and end, in bytes."""
        begins, ends = self.offsets[which], self.offsets[which + 1]
        return begins.astype(np.int64) * _WIDTH, ends.astype(np.int64) * _WIDTH


@dataclass(frozen=True)
class _Block:
    """Some rows: their prompts, their responses, and which of these are whose (``rows`` ``(n + 1,)``)."""

    prompts: _Lists
    responses: _Lists
    rows: np.ndarray

    @classmethod
    def of(cls, prompts: Any, responses: Any) -> _Block:
        return cls(_Lists.of(prompts), _Lists.of(responses.values), responses.offsets.to_numpy())


def _numbered(counts: np.ndarray) -> np.ndarray:
    """0, 1, … up to each of the counts."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def in_bytes(ids: np.ndarray) -> memoryview:
    """Token ids as :func:`response_keys` takes them."""
    return np.ascontiguousarray(ids, "<i4").view(np.uint8).data


def as_keys(content: bytes) -> np.ndarray:
    """``(n, 2)`` int64 from 16 bytes each."""
    return np.frombuffer(content, dtype="<i8").reshape(-1, 2)
