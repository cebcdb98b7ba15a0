"""How long the pairs of a prepared dataset are, without reading their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import list_lengths

if TYPE_CHECKING:
    from datasets import Dataset


def packed_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each pair with its prompt counted once, prompt + chosen + rejected: ``(N,)`` int64, by row."""
    prompt, chosen, rejected = (list_lengths(dataset, f"{side}_ids") for side in ("prompt", "chosen", "rejected"))
    return (prompt + chosen + rejected).astype(np.int64)


def padded_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each pair's longer side, prompt + reply: ``(N,)`` int64, by row."""
    prompt, chosen, rejected = (list_lengths(dataset, f"{side}_ids") for side in ("prompt", "chosen", "rejected"))
    return (prompt + np.maximum(chosen, rejected)).astype(np.int64)
