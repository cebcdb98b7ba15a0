"""Exactly the asked number of flips, the same for every row order, on the record, and none at rate 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignzoo.data.noise import flip_labels, write_manifest
from alignzoo.errors import UsageError

hypothesis_settings = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(count: int) -> Dataset:
    return Dataset.from_list(
        [
            {
                "pair_id": 10 * n,
                "prompt_ids": [n],
                "chosen_ids": [n, 1],
                "rejected_ids": [n, 2, 2],
                "chosen_safe": True,
                "rejected_safe": False,
                "chosen_score": 2.0,
                "rejected_score": 1.0,
                "prompt_text": "p",
                "chosen_text": f"c{n}",
                "rejected_text": f"r{n}",
            }
            for n in range(count)
        ]
    )


def swapped(row: dict[str, Any]) -> dict[str, Any]:
    other = {"chosen_": "rejected_", "rejected_": "chosen_"}
    partner = {name: name for name in row}
    partner |= {name: other[side] + name.removeprefix(side) for side in other for name in row if name.startswith(side)}
    return {name: row[partner[name]] for name in row}


@hypothesis_settings
@given(st.integers(1, 25), st.floats(0, 1), st.integers(-3, 3))
def test_exactly_the_rounded_share_is_swapped_in_every_column(count: int, rate: float, seed: int) -> None:
    data = rows(count)
    noisy, flipped = flip_labels(data, rate, seed)
    assert len(flipped) == round(rate * count)
    assert noisy.features == data.features
    for before, after in zip(data, noisy, strict=True):
        assert after == (swapped(before) if before["pair_id"] in flipped else before)


@hypothesis_settings
@given(st.integers(2, 25), st.floats(0, 1), st.randoms(use_true_random=False))
def test_row_order_does_not_matter_and_twice_is_the_identity(count: int, rate: float, random: Any) -> None:
    data = rows(count)
    noisy, flipped = flip_labels(data, rate, 1)
    order = list(range(count))
    random.shuffle(order)
    shuffled, the_same = flip_labels(data.select(order), rate, 1)
    assert the_same == flipped
    assert list(shuffled) == [noisy[row] for row in order]
    assert list(flip_labels(noisy, rate, 1)[0]) == list(data)


def test_higher_rate_flips_a_superset_and_another_seed_other_pairs() -> None:
    data = rows(100)
    few, many = set(flip_labels(data, 0.1, 0)[1]), set(flip_labels(data, 0.4, 0)[1])
    assert few < many
    assert few != set(flip_labels(data, 0.1, 1)[1])


def test_rate_zero_returns_the_same_object() -> None:
    data = rows(5)
    assert flip_labels(data, 0.0, 0) == (data, [])
    assert flip_labels(data, 0.0, 0)[0] is data


@pytest.mark.parametrize(
    ("rate", "seed", "ids"),
    [(0.25, 0, [0, 24, 27, 39, 51]), (0.25, 7, [0, 12, 15, 18, 51]), (0.5, -1, [3, 6, 15, 24, 27, 30, 36, 45, 54, 57])],
)
def test_the_pairs_are_those_of_earlier_versions(rate: float, seed: int, ids: list[int]) -> None:
    data = rows(20).map(lambda row: {"pair_id": row["pair_id"] * 3 // 10})
    noisy, flipped = flip_labels(data, rate, seed)
    assert flipped == ids
    assert [row["pair_id"] for row in noisy if row["chosen_score"] == 1.0] == ids


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rate_out_of_bounds(rate: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        flip_labels(rows(2), rate, 0)


def test_manifest_has_a_header_and_one_line_per_flip(tmp_path: Path) -> None:
    path = tmp_path / "run" / "flips.jsonl"
    path.parent.mkdir()
    write_manifest(path, [30, 70], rate=0.2, seed=3, n=10)
    header, *pairs = map(json.loads, path.read_text().splitlines())
    assert header == {"rate": 0.2, "seed": 3, "n": 10, "flipped": 2}
    assert pairs == [{"pair_id": 30}, {"pair_id": 70}]
    assert [entry.name for entry in path.parent.iterdir()] == ["flips.jsonl"]
