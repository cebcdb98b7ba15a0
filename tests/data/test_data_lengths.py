"""Lengths of rows, read from the columns' offsets, for every way that rows can have been selected."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from alignzoo.data.columns import column, take
from alignzoo.data.lengths import lengths_of
from alignzoo.data.mismatch import partners


def rows(count: int) -> Dataset:
    return Dataset.from_dict(
        {
            "row_id": list(range(count)),
            "prompt_key": [str(n // 2) for n in range(count)],
            "prompt_ids": [[7] * (1 + n % 3) for n in range(count)],
            "response_ids": [[[8] * (1 + (n + 3 * r) % 5) for r in range(1 + n % 4)] for n in range(count)],
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
    listed = [(len(row["prompt_ids"]), [len(ids) for ids in row["response_ids"]]) for row in data]
    lengths = lengths_of(data)
    assert lengths.packed.tolist() == [prompt + sum(responses) for prompt, responses in listed]
    assert lengths.longest.tolist() == [prompt + max(responses) for prompt, responses in listed]
    assert lengths.responses.tolist() == [len(responses) for _, responses in listed]
    assert lengths.packed.dtype == lengths.longest.dtype == lengths.responses.dtype == np.int64
    assert column(data, "row_id").to_pylist() == data["row_id"][:]


@pytest.mark.parametrize("selection", [name for name in SELECTIONS if name != "none"])
def test_mismatched_responses_count(selection: str) -> None:
    data = SELECTIONS[selection](rows(40))
    others = partners(data, 99)
    lengths = lengths_of(data, others)
    for i, row in enumerate(data):
        own, foreign = row["response_ids"], data[int(others[i])]["response_ids"]
        responses = [*own, *(foreign[r % len(foreign)] for r in range(len(own)))]
        assert lengths.responses[i] == len(responses)
        assert lengths.packed[i] == len(row["prompt_ids"]) + sum(map(len, responses))
        assert lengths.longest[i] == len(row["prompt_ids"]) + max(map(len, responses))


@pytest.mark.parametrize("numbers", [[4, 5, 6], [6, 4, 5], [3, 3], [0], list(range(40)), []])
def test_taken_rows_are_those_of_select(numbers: list[int]) -> None:
    data = rows(40)
    taken = take(data, np.array(numbers))
    assert list(taken) == list(data.select(numbers))
    assert (taken._indices is None) == (numbers == sorted(set(numbers))), "consecutive rows are a slice"
    assert taken._fingerprint == take(data, np.array(numbers))._fingerprint != take(data, np.array([1]))._fingerprint
