"""Lengths of pairs, read from the columns' offsets, for every way that rows can have been selected."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from alignzoo.data.columns import column, take
from alignzoo.data.lengths import lengths_of


def rows(count: int) -> Dataset:
    return Dataset.from_dict(
        {
            "pair_id": list(range(count)),
            "prompt_ids": [[7] * (1 + n % 3) for n in range(count)],
            "chosen_ids": [[8] * (1 + n % 5) for n in range(count)],
            "rejected_ids": [[9] * (1 + n % 7) for n in range(count)],
        }
    )


SELECTIONS = {
    "all": lambda data: data,
    "a slice": lambda data: data.select(range(5, 31)),
    "by number": lambda data: data.select([30, 2, 2, 17]),
    "by number, twice": lambda data: data.select([30, 2, 39, 17]).select([3, 0]),
    "of several tables": lambda data: concatenate_datasets([data, data.select([3, 1])]).select([41, 0, 40]),
    "none": lambda data: data.select([]),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_lengths_are_those_of_the_rows(selection: str) -> None:
    data = SELECTIONS[selection](rows(40))
    listed = [[len(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")] for row in data]
    lengths = lengths_of(data)
    assert lengths.packed.tolist() == [p + c + r for p, c, r in listed]
    assert lengths.longest.tolist() == [p + max(c, r) for p, c, r in listed]
    assert lengths.packed.dtype == lengths.longest.dtype == np.int64
    assert column(data, "pair_id").to_pylist() == data["pair_id"][:]


@pytest.mark.parametrize("numbers", [[4, 5, 6], [6, 4, 5], [3, 3], [0], list(range(40)), []])
def test_taken_rows_are_those_of_select(numbers: list[int]) -> None:
    data = rows(40)
    taken = take(data, np.array(numbers))
    assert list(taken) == list(data.select(numbers))
    assert (taken._indices is None) == (numbers == sorted(set(numbers))), "consecutive rows are a slice"
    assert taken._fingerprint == take(data, np.array(numbers))._fingerprint != take(data, np.array([1]))._fingerprint
