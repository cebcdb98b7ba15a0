"""No prompt on two sides, whatever the order of rows."""

from __future__ import annotations

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.data.splits import drop_prompts, split_by_prompt
from alignzoo.errors import UsageError

SHARES = {"train": 0.7, "dev": 0.2, "test": 0.1}


def rows(keys: list[str]) -> Dataset:
    return Dataset.from_dict({"pair_id": list(range(len(keys))), "prompt_key": keys})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefghijk"), min_size=1, max_size=40), st.integers(-5, 5), st.randoms())
def test_a_partition_by_prompt_that_ignores_row_order(keys: list[str], seed: int, random: object) -> None:
    data = rows(keys)
    parts = split_by_prompt(data, SHARES, seed, "main")
    assert list(parts) == list(SHARES)
    ids = [pair for part in parts.values() for pair in part["pair_id"][:]]
    assert sorted(ids) == list(range(len(keys)))
    prompts = [set(part["prompt_key"][:]) for part in parts.values()]
    assert sum(map(len, prompts)) == len(set(keys))
    order = list(range(len(keys)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = split_by_prompt(data.select(order), SHARES, seed, "main")
    assert {name: set(part["pair_id"][:]) for name, part in shuffled.items()} == {
        name: set(part["pair_id"][:]) for name, part in parts.items()
    }


def test_shares_seed_and_salt() -> None:
    data = rows([str(number) for number in range(4000)])
    parts = split_by_prompt(data, SHARES, 0, "main")
    assert {name: round(len(part) / 4000, 1) for name, part in parts.items()} == SHARES
    test = set(parts["test"]["pair_id"][:])
    assert test != set(split_by_prompt(data, SHARES, 1, "main")["test"]["pair_id"][:])
    assert test != set(split_by_prompt(data, SHARES, 0, "other")["test"]["pair_id"][:])
    assert len(split_by_prompt(data, {"all": 1.0, "none": 0.0}, 0, "main")["all"]) == 4000


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 0.9, "b": 0.2}])
def test_shares_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        split_by_prompt(rows(["a"]), shares, 0, "main")


def test_prompts_of_another_dataset_are_dropped_and_counted() -> None:
    data = rows(["a", "b", "a", "c"])
    left, count = drop_prompts(data, {"a", "z"})
    assert (left["pair_id"][:], count) == ([1, 3], 2)
    same, none = drop_prompts(data, ["z"])
    assert same is data
    assert none == 0
