"""Responses to another prompt, for KTO's estimate of the KL divergence.

They are fixed per dataset, so that their reference log-probs can be cached and a step does not depend on how it is
split into batches. (TRL 1.16 also fixes them in the dataset: the response of the previous row.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column, list_lengths, nested_lengths
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_REACH = 1000
"""Number of preceding rows searched first: nearly every row finds a partner there."""


def partners(dataset: Dataset, max_length: int) -> np.ndarray:
    """For each row the nearest preceding row, cyclically, with another prompt: row numbers, ``(N,)`` int64.

    If its responses do not fit after the row's prompt, the next nearest is taken, so that mismatched responses are
    complete and no sequence exceeds the maximum length; if no row's responses fit, it is the nearest after all.

    Args:
        max_length: tokens of prompt and response.

    Raises:
        DataError: all prompts are the same.
    """
    keys = column(dataset, "prompt_key").combine_chunks().dictionary_encode().indices.to_numpy()
    found = _nearest(keys)
    room = max_length - list_lengths(dataset, "prompt_ids").astype(np.int64)
    counts, tokens = nested_lengths(dataset, "response_ids")
    longest = np.maximum.reduceat(tokens, np.cumsum(counts) - counts)
    for row in np.flatnonzero((longest[found] > room) & (longest.min() <= room)):
        for reach in (_REACH, len(keys) - 1):
            before = (row - np.arange(1, reach + 1)) % len(keys)
            able = before[(longest[before] <= room[row]) & (keys[before] != keys[row])]
            if len(able):
                found[row] = able[0]
                break
    return found


def _nearest(keys: np.ndarray) -> np.ndarray:
    rows = np.arange(len(keys))
    # Starts of runs of rows with the same prompt; the row before a run is the partner of all its rows.
    begins = keys != np.roll(keys, 1)
    if not begins.any():
        same = "there is one row" if len(keys) == 1 else f"all {len(keys)} rows have the same prompt"
        raise DataError(
            f"a method of this run compares responses with those to other prompts, but {same}",
            hint="use data with several prompts, or choose another method",
        )
    begin = np.maximum.accumulate(np.where(begins, rows, -1))
    begin[begin < 0] = rows[begins][-1]  # the first rows belong to the run that starts last
    return (begin - 1) % len(keys)


def places(counts: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Indices of all rows' mismatched responses among all responses of a dataset, in order: ``(R,)`` int64.

    A row gets as many as it has responses: its partner's in order, repeated cyclically if there are fewer.

    Args:
        counts: ``(N,)`` responses of each row.
        partners: ``(N,)``.
    """
    starts = np.cumsum(counts) - counts
    rank = np.arange(int(counts.sum())) - np.repeat(starts, counts)
    return np.repeat(starts[partners], counts) + rank % np.repeat(counts[partners], counts)
