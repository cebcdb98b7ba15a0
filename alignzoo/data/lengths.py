"""How long the rows of a prepared dataset are, without reading their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import list_lengths

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Lengths:
    """Tokens and responses of a dataset's rows, ``(N,)`` int64 each; mismatched responses count like the others.

    Attributes:
        packed: tokens of the prompt (counted once) and all responses.
        longest: tokens of the prompt with its longest response.
        responses: how many there are.
    """

    packed: np.ndarray
    longest: np.ndarray
    responses: np.ndarray


def lengths_of(dataset: Dataset, partners: np.ndarray | None = None) -> Lengths:
    """The lengths of a prepared dataset's rows.

    Args:
        partners: ``(N,)``, the row whose responses are a row's mismatched ones; see :mod:`alignzoo.data.mismatch`.
    """
    prompt = list_lengths(dataset, "prompt_ids").astype(np.int64)
    lengths, first, count = _response_lengths(dataset)
    own = lengths[_places(first, count, count)]
    if partners is not None:
        others = lengths[_places(first[partners], count[partners], count)]
        own, count = np.stack([own, others], 1).ravel(), 2 * count  # of one row together, which is all that matters
    if len(count) == 0:
        return Lengths(prompt, prompt, count)
    start = np.cumsum(count) - count
    return Lengths(prompt + np.add.reduceat(own, start), prompt + np.maximum.reduceat(own, start), count)


def _places(first: np.ndarray, available: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Where each row's ``count`` responses stand, from its ``first`` one, cyclically among those ``available``."""
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + within % np.repeat(available, count)


def _response_lengths(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of every response of the dataset's table; and by row, where its responses begin there and their number.

    Read from offsets: the tokens are not touched, nor copied for a selection of rows.
    """
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    chunks = dataset.data.column("response_ids").chunks
    found = [pc.list_value_length(chunk.flatten()).to_numpy(zero_copy_only=False) for chunk in chunks]
    lengths = np.concatenate([np.empty(0, np.int64), *found]).astype(np.int64)
    count = pc.list_value_length(dataset.data.column("response_ids")).to_numpy().astype(np.int64)
    first = np.cumsum(count) - count
    if dataset._indices is not None:
        rows = dataset._indices.column(0).to_numpy()
        first, count = first[rows], count[rows]
    return lengths, first, count
