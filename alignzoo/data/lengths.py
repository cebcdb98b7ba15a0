"""How long the pairs of a prepared dataset are, without reading their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import list_lengths

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Lengths:
    """Tokens of a dataset's pairs, ``(N,)`` int64 each, by row.

    Attributes:
        packed: prompt (counted once) and both responses.
        longest: the longer sequence, prompt and response.
    """

    packed: np.ndarray
    longest: np.ndarray


def lengths_of(dataset: Dataset) -> Lengths:
    """The lengths of a prepared dataset's pairs."""
    prompt, chosen, rejected = (list_lengths(dataset, f"{side}_ids") for side in ("prompt", "chosen", "rejected"))
    return Lengths(
        (prompt + chosen + rejected).astype(np.int64), (prompt + np.maximum(chosen, rejected)).astype(np.int64)
    )
