"""Padding on the right, masks from lengths, nothing empty."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from datasets import Dataset

from alignzoo.data.collate import batches_of, collate, grouped_batches
from alignzoo.errors import DataError

EOS = 9
ROWS: list[dict[str, Any]] = [
    {"row_id": 4, "prompt_ids": [1, 2], "response_ids": [[3, EOS], [4, 5, 6, EOS]]},
    {"row_id": 7, "prompt_ids": [1], "response_ids": [[EOS], [8, EOS]]},
]
RANKED: list[dict[str, Any]] = [
    {"row_id": 0, "prompt_ids": [1], "response_ids": [[2], [3, 4], [5]]},
    {"row_id": 1, "prompt_ids": [6, 7], "response_ids": [[8, 9], [3]]},
]
ALONE: list[dict[str, Any]] = [
    {"row_id": 0, "prompt_ids": [1], "response_ids": [[2, 3]], "label": -1},
    {"row_id": 1, "prompt_ids": [4], "response_ids": [[5]], "label": 1},
]


def test_layout_masks_and_lengths_where_padding_is_the_eos() -> None:
    batch = collate(ROWS, pad_id=EOS, shape="pairs")
    assert batch.input_ids.tolist() == [
        [1, 2, 3, EOS, EOS, EOS],
        [1, 2, 4, 5, 6, EOS],
        [1, EOS, EOS, EOS, EOS, EOS],
        [1, 8, EOS, EOS, EOS, EOS],
    ]
    assert batch.attention_mask.sum(1).tolist() == [4, 6, 2, 3]
    assert batch.response_mask.int().tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
    ]
    assert batch.response_mask.dtype == torch.bool
    assert batch.row_ids.tolist() == [4, 7]
    assert batch.prompt_lengths.tolist() == [2, 1]
    assert batch.lengths.tolist() == [2, 4, 1, 2]
    assert (batch.rows, batch.responses, batch.sizes, batch.tokens) == (2, 4, (2, 2), 15)
    assert batch.tokens == int(batch.attention_mask.sum())
    assert batch.scores is batch.groups is batch.roles is None


@pytest.mark.parametrize(
    ("shape", "rows", "labels", "ranks", "paired"),
    [
        ("pairs", ROWS, [1, -1, 1, -1], [0, 1, 0, 1], True),
        ("unpaired", ALONE, [-1, 1], [-1, -1], False),
        ("ranked", RANKED, [0, 0, 0, 0, 0], [0, 1, 2, 0, 1], False),
        ("ranked", RANKED[1:], [0, 0], [0, 1], False),  # so that batches and ranks of a step agree
    ],
)
def test_labels_and_ranks_follow_from_the_shape(
    shape: Any, rows: list[dict[str, Any]], labels: list[int], ranks: list[int], paired: bool
) -> None:
    batch = collate(rows, pad_id=0, shape=shape)
    assert batch.labels.tolist() == labels
    assert batch.ranks.tolist() == ranks
    assert batch.paired is paired
    assert batch.prompt.tolist() == [i for i, row in enumerate(rows) for _ in row["response_ids"]]


def test_mismatched_responses_stand_behind_a_rows_own_without_label_or_rank() -> None:
    rows = [{**row, "score": [0.5] * len(row["response_ids"])} for row in RANKED]
    batch = collate(rows, pad_id=0, shape="ranked", kl=[[[9, 9]], [[8], [7, 7]]])
    assert batch.sizes == (4, 4)
    assert batch.input_ids[3].tolist() == [1, 9, 9, 0]
    assert batch.input_ids[7].tolist() == [6, 7, 7, 7]
    assert batch.roles is not None
    assert batch.roles.tolist() == [0, 0, 0, 1, 0, 0, 1, 1]
    assert batch.ranks.tolist() == [0, 1, 2, -1, 0, 1, -1, -1]
    assert batch.scores is not None
    assert batch.scores.tolist() == [0.5, 0.5, 0.5, 0, 0.5, 0.5, 0, 0]
    pairs = collate(ROWS, pad_id=0, shape="pairs", kl=[[[9], [9]], [[8], [8]]])
    assert pairs.labels.tolist() == [1, -1, 0, 0, 1, -1, 0, 0]
    assert not pairs.paired
    one = collate(ALONE, pad_id=0, shape="unpaired", kl=[[[9]], [[8]]])
    assert not one.paired, "a response and a mismatched one are no pair"


def test_scores_groups_and_moving() -> None:
    rows = [{**row, "score": [2.0, 1], "group": "g"} for row in ROWS]
    batch = collate(rows, pad_id=0, shape="pairs").to("meta")
    assert batch.groups == ("g", "g")
    assert batch.input_ids.device.type == batch.labels.device.type == "meta"
    assert batch.scores is not None
    assert (batch.scores.shape, batch.scores.dtype, batch.scores.device.type) == ((4,), torch.float32, "meta")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"prompt_ids": []}, "the prompt has no token"),
        ({"response_ids": [[3], []]}, "response 2 of 2 has no token"),
        ({"response_ids": []}, "there are no responses"),
    ],
)
def test_an_empty_sequence_raises_and_names_the_row(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=f"row 7: {problem}"):
        collate([ROWS[0], {**ROWS[1], **changed}], pad_id=0, shape="pairs")


def test_batches_follow_the_indices_and_leave_texts_behind() -> None:
    rows = [{**ROWS[n % 2], "row_id": n, "prompt_text": "p", "group": str(n)} for n in range(6)]
    batches = list(batches_of(Dataset.from_list(rows), [5, 0, 3, 3, 1], 2, pad_id=0, shape="pairs"))
    assert [batch.row_ids.tolist() for batch in batches] == [[5, 0], [3, 3], [1]]
    assert batches[0].groups == ("5", "0")


def test_given_scores_replace_those_of_the_data() -> None:
    class Given:
        def of(self, rows: Sequence[int]) -> list[list[float]]:
            return [[10.0 * row + place for place in range(len(RANKED[row]["response_ids"]))] for row in rows]

    data = Dataset.from_list([{**row, "score": [0.0] * len(row["response_ids"])} for row in RANKED])
    scores: Any = Given()
    [batch] = grouped_batches(data, [[1, 0]], 0, shape="ranked", scores=scores)
    assert batch.scores is not None
    assert batch.scores.tolist() == [10, 11, 0, 1, 2]


def test_only_collating_imports_torch() -> None:
    modules = "sources, formats, rows, rendering, tokens, prepare, splits, noise, stream, summary"
    code = (
        f"import sys\nfrom alignzoo.data import {modules}\n"
        "assert not {'torch', 'datasets', 'transformers', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_row_of_a_batch_is_the_row_collated_alone() -> None:
    rows = [
        {"row_id": 3, "prompt_ids": [1, 2], "response_ids": [[3], [4, 5], [6]], "score": [3.0, 2.0, 1.0]},
        {"row_id": 7, "prompt_ids": [6, 7, 8], "response_ids": [[9, 10, 11], [12]], "score": [0.5, 0.25]},
    ]
    kl = [[[5]], [[4, 4], [3]]]
    short = {**rows[1], "prompt_ids": [7, 8], "response_ids": [[9, 10], [12]]}
    whole = collate(rows, pad_id=0, shape="ranked", kl=kl)
    for found, i, expected in (
        (whole.row(0), 0, rows[0]),
        (whole.row(1), 1, rows[1]),
        (whole.row(1, most=2), 1, short),
    ):
        alone = collate([expected], pad_id=0, shape="ranked", kl=[kl[i]])
        assert found.sizes == alone.sizes
        for name, value in vars(alone).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(found, name), value), name
