"""No prompt on two sides, whatever the order of rows."""

from __future__ import annotations

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.data.splits import drop_prompts, hold_out, split_by_prompt
from alignzoo.errors import UsageError

SHARES = {"train": 0.7, "dev": 0.2, "test": 0.1}


def rows(keys: list[str]) -> Dataset:
    return Dataset.from_dict({"row_id": list(range(len(keys))), "prompt_key": keys})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefghijk"), min_size=1, max_size=40), st.integers(-5, 5), st.randoms())
def test_a_partition_by_prompt_that_ignores_row_order(keys: list[str], seed: int, random: object) -> None:
    data = rows(keys)
    parts = split_by_prompt(data, SHARES, seed, "main")
    assert list(parts) == list(SHARES)
    ids = [pair for part in parts.values() for pair in part["row_id"][:]]
    assert sorted(ids) == list(range(len(keys)))
    prompts = [set(part["prompt_key"][:]) for part in parts.values()]
    assert sum(map(len, prompts)) == len(set(keys))
    order = list(range(len(keys)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = split_by_prompt(data.select(order), SHARES, seed, "main")
    assert {name: set(part["row_id"][:]) for name, part in shuffled.items()} == {
        name: set(part["row_id"][:]) for name, part in parts.items()
    }


def test_shares_seed_and_salt() -> None:
    data = rows([str(number) for number in range(4000)])
    parts = split_by_prompt(data, SHARES, 0, "main")
    assert {name: round(len(part) / 4000, 1) for name, part in parts.items()} == SHARES
    test = set(parts["test"]["row_id"][:])
    assert test != set(split_by_prompt(data, SHARES, 1, "main")["test"]["row_id"][:])
    assert test != set(split_by_prompt(data, SHARES, 0, "other")["test"]["row_id"][:])
    assert len(split_by_prompt(data, {"all": 1.0, "none": 0.0}, 0, "main")["all"]) == 4000


@pytest.mark.parametrize(
    ("seed", "dev", "test"), [(0, [5, 7, 8, 18, 20, 21], []), (-3, [12, 25], [1, 6, 8, 14, 19, 21, 27])]
)
def test_a_prompt_stays_where_it_was_in_earlier_versions(seed: int, dev: list[int], test: list[int]) -> None:
    parts = split_by_prompt(rows([str(n * 7 % 13) for n in range(30)]), SHARES, seed, "main")
    assert (parts["dev"]["row_id"][:], parts["test"]["row_id"][:]) == (dev, test)
    assert sorted([*parts["train"]["row_id"][:], *dev, *test]) == list(range(30))


@pytest.mark.parametrize(
    ("share", "at_most", "held"),
    [
        (0.5, 3, [6, 9, 19, 22]),
        (0.5, 100, [0, 1, 5, 6, 7, 9, 13, 14, 18, 19, 20, 22, 26, 27]),
        (1.0, 9, [0, 5, 6, 7, 9, 13, 18, 19, 20, 22, 26]),
        (0.0, 5, []),
    ],
)
def test_what_is_held_out_is_what_it_was_in_earlier_versions(share: float, at_most: int, held: list[int]) -> None:
    rest, out = hold_out(rows([str(n * 7 % 13) for n in range(30)]), share, at_most, "eval")
    assert out["row_id"][:] == held
    assert rest["row_id"][:] == [row for row in range(30) if row not in held]


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 0.9, "b": 0.2}])
def test_shares_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        split_by_prompt(rows(["a"]), shares, 0, "main")


def test_prompts_of_another_dataset_are_dropped_and_counted() -> None:
    data = rows(["a", "b", "a", "c"])
    left, count = drop_prompts(data, {"a", "z"})
    assert (left["row_id"][:], count) == ([1, 3], 2)
    same, none = drop_prompts(data, ["z"])
    assert same is data
    assert none == 0
