"""Mismatched responses: fixed by the data, never of the same prompt."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.data.mismatch import partners, places
from alignzoo.errors import DataError


def prompts(keys: list[str]) -> Dataset:
    return Dataset.from_dict({"prompt_key": keys})


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12).filter(lambda keys: len(set(keys)) > 1))
def test_the_partner_is_the_nearest_row_before_with_another_prompt(keys: list[str]) -> None:
    found = partners(prompts(keys))
    assert found.dtype == np.int64
    for row, key in enumerate(keys):
        before = (row - step for step in range(1, len(keys)))
        assert found[row] == next(other % len(keys) for other in before if keys[other % len(keys)] != key)


def test_rows_of_a_selection_have_partners_in_it() -> None:
    data = prompts(list("aabbcc")).select([4, 0, 1, 5])
    assert partners(data).tolist() == [2, 0, 0, 2]
    assert partners(data).tolist() == partners(data).tolist()


@pytest.mark.parametrize("keys", ["a", "aaaa"])
def test_one_prompt_alone_has_no_partner(keys: str) -> None:
    with pytest.raises(DataError, match="all prompts are the same"):
        partners(prompts(list(keys)))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_row_gets_as_many_responses_as_it_has(counts: list[int], random: object) -> None:
    others = [random.randrange(len(counts)) for _ in counts]  # type: ignore[attr-defined]
    responses = [[(row, rank) for rank in range(count)] for row, count in enumerate(counts)]
    listed = [responses[other][rank % counts[other]] for row, other in enumerate(others) for rank in range(counts[row])]
    flat = [response for row in responses for response in row]
    assert [flat[at] for at in places(np.array(counts), np.array(others))] == listed
