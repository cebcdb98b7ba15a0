"""Splits by prompt: no prompt is in two parts, regardless of row order and duplicates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column, take
from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset


_KEYS = 50_000
"""Number of prompts converted to Python objects at a time."""


def split_by_prompt(dataset: Dataset, shares: dict[str, float], seed: int, salt: str) -> dict[str, Dataset]:
    """Partition a prepared dataset by the hash of each row's ``prompt_key``.

    A prompt's part depends only on the prompt, ``seed`` and ``salt``, so parts keep their prompts when rows are
    added. The parts' sizes therefore match ``shares`` in expectation, not exactly.

    Args:
        shares: part -> fraction of the prompts; they sum to 1.
        seed: selects the partition.
        salt: distinguishes partitions with the same seed for different purposes.

    Raises:
        UsageError: shares that are negative or do not sum to 1.
    """
    if not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
        raise UsageError(f"split shares must be at least 0 and sum to 1, got {shares}")
    bounds = list(accumulate(shares.values()))
    # A prompt with the highest hash must not be lost to rounding of the last bound.
    last = max(part for part, share in enumerate(shares.values()) if share > 0)
    places, prompts = _prompts(dataset, f"{salt}/{seed}/")
    found = np.searchsorted(bounds, places, side="right")
    parts = np.where(found < len(bounds), found, last)[prompts]
    return {name: take(dataset, np.flatnonzero(parts == part)) for part, name in enumerate(shares)}


def hold_out(dataset: Dataset, share: float, at_most: int, salt: str) -> tuple[Dataset, Dataset]:
    """``(rest, held out)``: whole prompts, in an order that depends only on the prompts and ``salt``.

    Takes prompts from at most ``share`` of the hash range until ``at_most`` rows are reached (the last prompt is taken
    whole), so a larger share or number holds out a superset.
    """
    places, prompts = _prompts(dataset, f"{salt}/")
    order = np.argsort(places, kind="stable")
    counts = np.bincount(prompts, minlength=len(places))[order]
    rows_before = np.cumsum(counts) - counts
    number = min(int((places < share).sum()), int((rows_before < at_most).sum()))
    held = np.zeros(len(places), bool)
    held[order[:number]] = True
    return take(dataset, np.flatnonzero(~held[prompts])), take(dataset, np.flatnonzero(held[prompts]))


def drop_prompts(dataset: Dataset, keys: Collection[str]) -> tuple[Dataset, int]:
    """``dataset`` without the rows whose ``prompt_key`` is in ``keys``, and how many those were."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    unwanted = pc.is_in(column(dataset, "prompt_key"), value_set=pa.array(list(keys), pa.string())).to_numpy()
    dropped = int(unwanted.sum())
    return (take(dataset, np.flatnonzero(~unwanted)) if dropped else dataset), dropped


def _prompts(dataset: Dataset, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """The hash of each of the U different prompts, ``(U,)`` in [0, 1), and the index of each row's prompt, ``(N,)``."""
    import pyarrow as pa

    encoded = column(dataset, "prompt_key").combine_chunks().dictionary_encode()
    keys, start = encoded.dictionary.cast(pa.binary()), prefix.encode()
    blocks = [_unit_hashes(start, keys[at : at + _KEYS].to_pylist()) for at in range(0, len(keys), _KEYS)]
    return np.concatenate([np.empty(0), *blocks]), encoded.indices.to_numpy()


def _unit_hashes(prefix: bytes, keys: Iterable[bytes]) -> np.ndarray:
    """A pseudo-random number in [0, 1) for each key that depends only on prefix + key: 53 bits of their sha256."""
    digests = b"".join([hashlib.sha256(prefix + key).digest() for key in keys])
    return (np.frombuffer(digests, ">u8")[::4] >> np.uint64(11)) / 2**53
