"""Lengths of the rows of a prepared dataset, without reading their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import list_lengths, nested_lengths
from alignzoo.data.mismatch import places

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Lengths:
    """Sizes of a dataset's rows, ``(N,)`` int64 each.

    Attributes:
        packed: tokens of the prompt (counted once) and all responses, including mismatched ones.
        longest: tokens of the longest sequence, prompt and response.
        responses: number of responses, including mismatched ones.
    """

    packed: np.ndarray
    longest: np.ndarray
    responses: np.ndarray


def lengths_of(dataset: Dataset, partners: np.ndarray | None = None) -> Lengths:
    """The lengths of a prepared dataset's rows.

    Args:
        partners: ``(N,)`` row numbers, if each row comes with the responses of another one
            (:func:`~alignzoo.data.mismatch.partners`); they count in full, even if a batch truncates them.
    """
    prompts = list_lengths(dataset, "prompt_ids").astype(np.int64)
    counts, tokens = nested_lengths(dataset, "response_ids")
    if len(counts) == 0:
        return Lengths(prompts, prompts, counts)
    starts = np.cumsum(counts) - counts
    total, longest = np.add.reduceat(tokens, starts), np.maximum.reduceat(tokens, starts)
    if partners is not None:
        foreign = tokens[places(counts, partners)]
        total = total + np.add.reduceat(foreign, starts)
        longest = np.maximum(longest, np.maximum.reduceat(foreign, starts))
        counts = 2 * counts
    return Lengths(prompts + total, prompts + longest, counts)
