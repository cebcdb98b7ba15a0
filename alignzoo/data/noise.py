"""Label noise for training data: the opposite label for a set share of rows, reproducible and recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.base.files import write_text
from alignzoo.data.columns import column, take
from alignzoo.data.digests import digest
from alignzoo.data.quiet import quiet_datasets
from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

PER_RESPONSE = ("response_ids", "response_text", "safe", "score")
"""Columns with one value per response."""


def flip_labels(dataset: Dataset, rate: float, seed: int) -> tuple[Dataset, list[int]]:
    """Give exactly ``round(rate * n)`` rows the opposite label; in pairs and lists, reverse the order of responses.

    Which rows depends on ``seed`` and their ``row_id``, not on the order of rows; a higher rate flips a superset.
    Scores and safety flags stay with their responses.

    Returns:
        The dataset in the same row order (the same object at rate 0), and the ids of the flipped rows, ascending.

    Raises:
        UsageError: ``rate`` is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"the label noise rate must be between 0 and 1, got {rate}")
    count = round(rate * len(dataset))
    if count == 0:
        return dataset, []
    ids = column(dataset, "row_id").to_numpy()
    drawn = b"".join(hashlib.sha256(f"{seed}/{row}".encode()).digest() for row in ids.tolist())
    words = np.frombuffer(drawn, ">u8").reshape(-1, 4)
    rows = np.sort(np.lexsort(words.T[::-1])[:count])
    return flip_rows(dataset, rows), np.sort(ids[rows]).tolist()


def flip_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The dataset with the labels of these rows flipped; only these rows are rewritten."""
    import datasets

    clean = take(dataset, rows)
    with quiet_datasets():
        flipped = clean.with_format("arrow").map(
            _flip_block, batched=True, features=dataset.features, new_fingerprint=digest(clean._fingerprint, "flipped")
        )
    both = datasets.concatenate_datasets([dataset, flipped.with_format(None)])
    order = np.arange(len(dataset))
    order[rows] = len(dataset) + np.arange(len(rows))
    return take(both, order)


def _flip_block(block: Any) -> Any:
    """A pyarrow table of rows with their labels flipped."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    columns = {name: block[name] for name in block.column_names}
    if "label" in columns:
        columns["label"] = pc.negate(columns["label"])
    else:
        columns |= {name: _reversed(values) for name, values in columns.items() if name in PER_RESPONSE}
    return pa.table(columns)


def _reversed(lists: Any) -> Any:
    """A column of lists, each reversed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = lists.combine_chunks()
    counts = pc.list_value_length(lists).to_numpy()
    ends = np.cumsum(counts)
    within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    backwards = np.repeat(ends - 1, counts) - within
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, lists.flatten().take(pa.array(backwards)))


def write_manifest(path: str | Path, flipped: Sequence[int], *, rate: float, seed: int, n: int) -> None:
    """Record which rows were flipped: a header line with the settings, then one JSON line per row.

    The file is written atomically.
    """
    header: dict[str, Any] = {"rate": rate, "seed": seed, "n": n, "flipped": len(flipped)}
    lines = [header, *({"row_id": row} for row in flipped)]
    write_text(Path(path), "".join(f"{json.dumps(line)}\n" for line in lines))
