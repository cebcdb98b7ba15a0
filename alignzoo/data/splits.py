"""Splitting by prompt: no prompt on two sides, whatever order the rows come in and however often it occurs."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection
from itertools import accumulate
from typing import TYPE_CHECKING

from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset


def split_by_prompt(dataset: Dataset, shares: dict[str, float], seed: int, salt: str) -> dict[str, Dataset]:
    """Partition a prepared dataset by the hash of each pair's ``prompt_key``.

    Where a prompt goes depends on the prompt, ``seed`` and ``salt`` only, so parts keep their prompts when rows are
    added. The parts' sizes therefore follow ``shares`` in expectation, not to the row.

    Args:
        shares: part -> fraction of the prompts; they sum to 1.
        seed: which of the possible partitions.
        salt: keeps apart the partitions that one seed makes for different purposes.

    Raises:
        UsageError: shares that are negative or do not sum to 1.
    """
    if not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
        raise UsageError(f"Split shares must be at least 0 and sum to 1, got {shares}")
    bounds = list(accumulate(shares.values()))
    # A prompt that hashes to the very top must not fall out through a rounded last bound.
    last = max(part for part, share in enumerate(shares.values()) if share > 0)
    rows: list[list[int]] = [[] for _ in shares]
    for row, key in enumerate(dataset["prompt_key"][:]):
        place = _unit_hash(f"{salt}/{seed}/{key}")
        rows[next((part for part, bound in enumerate(bounds) if place < bound), last)].append(row)
    return {name: dataset.select(rows[part]) for part, name in enumerate(shares)}


def hold_out(dataset: Dataset, share: float, at_most: int, salt: str) -> tuple[Dataset, Dataset]:
    """``(rest, held out)``: whole prompts, in an order that depends on the prompts and ``salt`` only.

    Takes prompts of at most ``share`` of the hash range until ``at_most`` pairs are reached (the last prompt is taken
    whole), so that a larger share or number holds out a superset.
    """
    keys = dataset["prompt_key"][:]
    places = {key: _unit_hash(f"{salt}/{key}") for key in set(keys)}
    counts = Counter(keys)
    taken: set[str] = set()
    pairs = 0
    for key in sorted(places, key=places.__getitem__):
        if places[key] >= share or pairs >= at_most:
            break
        taken.add(key)
        pairs += counts[key]
    held = [row for row, key in enumerate(keys) if key in taken]
    rest = [row for row, key in enumerate(keys) if key not in taken]
    return dataset.select(rest), dataset.select(held)


def drop_prompts(dataset: Dataset, keys: Collection[str]) -> tuple[Dataset, int]:
    """``dataset`` without the pairs whose ``prompt_key`` is in ``keys``, and how many those were."""
    unwanted = frozenset(keys)
    kept = [row for row, key in enumerate(dataset["prompt_key"][:]) if key not in unwanted]
    dropped = len(dataset) - len(kept)
    return (dataset.select(kept) if dropped else dataset), dropped


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that looks random and depends on ``text`` only."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53
