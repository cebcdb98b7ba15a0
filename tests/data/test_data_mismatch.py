"""Mismatched responses: fixed by the data, never of the same prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.data import mismatch
from alignzoo.data.mismatch import partners, places
from alignzoo.errors import DataError


def prompts(keys: list[str], prompt: list[int] | None = None, response: list[int] | None = None) -> Dataset:
    """Rows with prompts and responses of these lengths."""
    sizes = zip(prompt or [1] * len(keys), response or [1] * len(keys), strict=True)
    rows = [{"prompt_ids": [0] * own, "response_ids": [[0], [0] * reply]} for own, reply in sizes]
    return Dataset.from_list([{"prompt_key": key, **row} for key, row in zip(keys, rows, strict=True)])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12).filter(lambda keys: len(set(keys)) > 1))
def test_the_partner_is_the_nearest_row_before_with_another_prompt(keys: list[str]) -> None:
    found = partners(prompts(keys), 9)
    assert found.dtype == np.int64
    for row, key in enumerate(keys):
        before = (row - step for step in range(1, len(keys)))
        assert found[row] == next(other % len(keys) for other in before if keys[other % len(keys)] != key)


def test_rows_of_a_selection_have_partners_in_it() -> None:
    data = prompts(list("aabbcc")).select([4, 0, 1, 5])
    assert partners(data, 9).tolist() == [2, 0, 0, 2]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8), st.integers(1, 8)), min_size=2, max_size=12).filter(
        lambda rows: len({key for key, *_ in rows}) > 1
    ),
    st.sampled_from([1, 2, 1000]),
)
def test_responses_that_do_not_fit_behind_the_prompt_are_passed_over(rows: Any, reach: int) -> None:
    keys, sizes, longest = (list(column) for column in zip(*rows, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mismatch, "_REACH", min(reach, len(keys) - 1))
        found = partners(prompts(keys, sizes, longest), 9)
    for row, key in enumerate(keys):
        others = [(row - step) % len(keys) for step in range(1, len(keys))]
        others = [other for other in others if keys[other] != key]
        fitting = [other for other in others if sizes[row] + longest[other] <= 9]
        assert found[row] == [*fitting, *others][0]


@pytest.mark.parametrize(("keys", "why"), [("a", "there is one row"), ("aaaa", "all 4 rows have the same prompt")])
def test_one_prompt_alone_has_no_partner(keys: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        partners(prompts(list(keys)), 9)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_row_gets_as_many_responses_as_it_has(counts: list[int], random: object) -> None:
    others = [random.randrange(len(counts)) for _ in counts]  # type: ignore[attr-defined]
    responses = [[(row, rank) for rank in range(count)] for row, count in enumerate(counts)]
    listed = [responses[other][rank % counts[other]] for row, other in enumerate(others) for rank in range(counts[row])]
    flat = [response for row in responses for response in row]
    assert [flat[at] for at in places(np.array(counts), np.array(others))] == listed
