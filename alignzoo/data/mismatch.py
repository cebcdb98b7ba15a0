"""Responses to another prompt, which KTO's estimate of the KL divergence is made of.

Which ones a row gets is fixed for a dataset, so that their log-probs under the reference can be cached and a step is
the same however it is cut into batches. (TRL 1.16 fixes them in the dataset as well: the response of the row before.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column, list_lengths, nested_lengths
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_REACH = 1000
"""Rows among which nearly every row finds a partner; only the others look through all."""


def partners(dataset: Dataset, max_length: int, *, held_out: bool = False) -> np.ndarray:
    """For each row the nearest one before it, cyclically, that has another prompt: row numbers, ``(N,)`` int64.

    Where its responses do not fit behind the row's prompt the next nearest is taken, so that mismatched responses are
    whole and no sequence is longer than all others may be; the nearest after all where no row's responses fit.

    Args:
        max_length: tokens of prompt and response.
        held_out: these are the rows to evaluate on; only the error says so.

    Raises:
        DataError: all prompts are the same.
    """
    keys = column(dataset, "prompt_key").combine_chunks().dictionary_encode().indices.to_numpy()
    if (keys == keys[0]).all():
        raise _one_prompt(len(keys), held_out)
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
    # Where a run of rows with one prompt begins; the row before it is the partner of all of the run.
    begins = keys != np.roll(keys, 1)
    begin = np.maximum.accumulate(np.where(begins, rows, -1))
    begin[begin < 0] = rows[begins][-1]  # the first rows are the end of the run that begins last
    return (begin - 1) % len(keys)


def _one_prompt(rows: int, held_out: bool) -> DataError:
    part = "held-out" if held_out else "training"
    same = f"there is one {part} row" if rows == 1 else f"all prompts of the {rows} {part} rows are the same"
    more = "raise --eval-share, or give --eval-data with" if held_out else "give data with"
    return DataError(
        f"a method of this run compares responses with those to other prompts, and {same}",
        hint=f"{more} several prompts, or choose another method",
    )


def places(counts: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Where the mismatched responses of all rows stand among all responses of a dataset, in order: ``(R,)`` int64.

    A row gets as many as it has responses, its partner's in order, from the first again where these are fewer.

    Args:
        counts: ``(N,)`` responses of each row.
        partners: ``(N,)``.
    """
    starts = np.cumsum(counts) - counts
    rank = np.arange(int(counts.sum())) - np.repeat(starts, counts)
    return np.repeat(starts[partners], counts) + rank % np.repeat(counts[partners], counts)
