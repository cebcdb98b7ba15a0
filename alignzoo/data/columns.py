"""Whole columns of a dataset, and rows by number, without a Python object per row."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset


def column(dataset: Dataset, name: str) -> Any:
    """A column as a pyarrow ``ChunkedArray``, in the order of the dataset's rows; only this column is read."""
    values = dataset.data.column(name)
    return values if dataset._indices is None else values.take(dataset._indices.column(0))


def list_lengths(dataset: Dataset, name: str) -> np.ndarray:
    """Length of each row's list in the column ``name``: ``(N,)`` int32. The items themselves are not read."""
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    lengths = pc.list_value_length(dataset.data.column(name)).to_numpy()
    return lengths if dataset._indices is None else lengths[dataset._indices.column(0).to_numpy()]


def nested_lengths(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """For a column of lists of lists: the number per row, ``(N,)``, and the length of each, ``(ΣN,)``; int64.

    The items themselves are not read.
    """
    import pyarrow.compute as pc

    lists = dataset.data.column(name)
    counts = pc.list_value_length(lists).to_numpy().astype(np.int64)
    lengths = pc.list_value_length(pc.list_flatten(lists)).to_numpy().astype(np.int64)
    if dataset._indices is None:
        return counts, lengths
    rows = dataset._indices.column(0).to_numpy()
    starts, taken = (np.cumsum(counts) - counts)[rows], counts[rows]
    rank = np.arange(int(taken.sum())) - np.repeat(np.cumsum(taken) - taken, taken)
    return taken, lengths[np.repeat(starts, taken) + rank]


def take(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The rows with the given numbers, in that order.

    Like ``Dataset.select``, with a fingerprint that is cheap to compute; consecutive rows are a slice.
    """
    rows = np.asarray(rows, np.int64)
    key = sha256(dataset._fingerprint.encode() + rows.tobytes()).hexdigest()[:32]
    consecutive = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
    return dataset.select(range(rows[0], rows[-1] + 1) if consecutive else rows, new_fingerprint=key)
