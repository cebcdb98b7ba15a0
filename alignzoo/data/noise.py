"""Label noise: swap the two sides of a known share of pairs, reproducibly and on the record. For training data."""

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

_CHOSEN, _REJECTED = "chosen_", "rejected_"


def flip_labels(dataset: Dataset, rate: float, seed: int) -> tuple[Dataset, list[int]]:
    """Swap every ``chosen_*`` column with its ``rejected_*`` in exactly ``round(rate * n)`` pairs.

    Which pairs depends on ``seed`` and their ``pair_id``, not on the order of rows; a higher rate flips a superset.

    Returns:
        The dataset in its old row order (the very same object at rate 0), and the flipped pair ids, ascending.

    Raises:
        UsageError: ``rate`` is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"The noise rate must be between 0 and 1, got {rate}")
    count = round(rate * len(dataset))
    if count == 0:
        return dataset, []
    ids = column(dataset, "pair_id").to_numpy()
    drawn = b"".join(hashlib.sha256(f"{seed}/{pair}".encode()).digest() for pair in ids.tolist())
    words = np.frombuffer(drawn, ">u8").reshape(-1, 4)
    rows = np.sort(np.lexsort(words.T[::-1])[:count])
    return _swap(dataset, rows), np.sort(ids[rows]).tolist()


def _swap(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The dataset with the sides of these rows swapped; only they are rewritten."""
    import datasets
    import pyarrow as pa  # type: ignore[import-untyped]

    chosen = [name for name in dataset.column_names if name.startswith(_CHOSEN)]
    partners = {name: _REJECTED + name.removeprefix(_CHOSEN) for name in chosen}
    partners |= {partner: name for name, partner in partners.items()}

    def swap_block(block: pa.Table) -> pa.Table:
        return pa.table({name: block[partners.get(name, name)] for name in block.column_names})

    clean = take(dataset, rows)
    with quiet_datasets():
        swapped = clean.with_format("arrow").map(
            swap_block, batched=True, features=dataset.features, new_fingerprint=digest(clean._fingerprint, "swapped")
        )
    both = datasets.concatenate_datasets([dataset, swapped.with_format(None)])
    order = np.arange(len(dataset))
    order[rows] = len(dataset) + np.arange(len(rows))
    return take(both, order)


def write_manifest(path: str | Path, flipped: Sequence[int], *, rate: float, seed: int, n: int) -> None:
    """Record which pairs were flipped: a header line with the settings, then one JSON line per pair.

    The file appears whole or not at all.
    """
    header: dict[str, Any] = {"rate": rate, "seed": seed, "n": n, "flipped": len(flipped)}
    lines = [header, *({"pair_id": pair} for pair in flipped)]
    write_text(Path(path), "".join(f"{json.dumps(line)}\n" for line in lines))
