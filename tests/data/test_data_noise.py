"""Exactly the asked number of flips, the same for every row order, on the record, and none at rate 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignzoo.data.noise import flip_labels, write_manifest
from alignzoo.errors import UsageError

FLIPPABLE = ("pairs", "unpaired", "ranked")
hypothesis_settings = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(count: int, shape: str = "pairs") -> Dataset:
    def sizes(n: int) -> int:
        return {"pairs": 2, "unpaired": 1, "ranked": 2 + n % 3}[shape]

    return Dataset.from_list(
        [
            {
                "row_id": 10 * n,
                "prompt_ids": [n],
                "response_ids": [[n, *range(r + 1)] for r in range(sizes(n))],
                "safe": [r == 0 for r in range(sizes(n))],
                "score": [float(9 - r) for r in range(sizes(n))],
                "prompt_text": "p",
                "response_text": [f"{n} {r}" for r in range(sizes(n))],
                "group": "g",
                **({"label": -1 if n % 3 else 1} if shape == "unpaired" else {}),
            }
            for n in range(count)
        ]
    )


def flipped_row(row: dict[str, Any]) -> dict[str, Any]:
    if "label" in row:
        return {**row, "label": -row["label"]}
    per_response = ("response_ids", "response_text", "safe", "score")
    return {name: value[::-1] if name in per_response else value for name, value in row.items()}


@hypothesis_settings
@given(st.sampled_from(FLIPPABLE), st.integers(1, 25), st.floats(0, 1), st.integers(-3, 3))
def test_exactly_the_rounded_share_is_flipped_in_every_column(shape: str, count: int, rate: float, seed: int) -> None:
    data = rows(count, shape)
    noisy, flipped = flip_labels(data, rate, seed)
    assert len(flipped) == round(rate * count)
    assert noisy.features == data.features
    for before, after in zip(data, noisy, strict=True):
        assert after == (flipped_row(before) if before["row_id"] in flipped else before)


@hypothesis_settings
@given(st.sampled_from(FLIPPABLE), st.integers(2, 25), st.floats(0, 1), st.randoms(use_true_random=False))
def test_row_order_does_not_matter_and_twice_is_the_identity(shape: str, count: int, rate: float, random: Any) -> None:
    data = rows(count, shape)
    noisy, flipped = flip_labels(data, rate, 1)
    order = list(range(count))
    random.shuffle(order)
    shuffled, the_same = flip_labels(data.select(order), rate, 1)
    assert the_same == flipped
    assert list(shuffled) == [noisy[row] for row in order]
    assert list(flip_labels(noisy, rate, 1)[0]) == list(data)


def test_higher_rate_flips_a_superset_and_another_seed_other_rows() -> None:
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
def test_the_rows_are_those_of_earlier_versions(rate: float, seed: int, ids: list[int]) -> None:
    data = rows(20).map(lambda row: {"row_id": row["row_id"] * 3 // 10})
    noisy, flipped = flip_labels(data, rate, seed)
    assert flipped == ids
    assert [row["row_id"] for row in noisy if row["score"] == [8.0, 9.0]] == ids


def test_rows_that_are_selected_and_of_several_tables_are_flipped_alike() -> None:
    data = rows(12, "ranked")
    several = concatenate_datasets([data.select(range(5, 12)), data.select([0, 4, 2, 1, 3])])
    noisy, flipped = flip_labels(several, 1.0, 0)
    assert flipped == [10 * n for n in range(12)]
    assert list(noisy) == [flipped_row(row) for row in several]


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rate_out_of_bounds(rate: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        flip_labels(rows(2), rate, 0)


def test_manifest_has_a_header_and_one_line_per_flip(tmp_path: Path) -> None:
    path = tmp_path / "run" / "flips.jsonl"
    path.parent.mkdir()
    write_manifest(path, [30, 70], rate=0.2, seed=3, n=10)
    header, *listed = map(json.loads, path.read_text().splitlines())
    assert header == {"rate": 0.2, "seed": 3, "n": 10, "flipped": 2}
    assert listed == [{"row_id": 30}, {"row_id": 70}]
    assert [entry.name for entry in path.parent.iterdir()] == ["flips.jsonl"]
