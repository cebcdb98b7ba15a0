"""Padding on the right, masks from lengths, nothing empty."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from datasets import Dataset

from alignzoo.data.collate import batches_of, collate
from alignzoo.errors import DataError

EOS = 9
ROWS: list[dict[str, Any]] = [
    {"pair_id": 4, "prompt_ids": [1, 2], "chosen_ids": [3, EOS], "rejected_ids": [4, 5, 6, EOS]},
    {"pair_id": 7, "prompt_ids": [1], "chosen_ids": [EOS], "rejected_ids": [8, EOS]},
]


def test_layout_masks_and_lengths_where_padding_is_the_eos() -> None:
    batch = collate(ROWS, pad_id=EOS)
    assert batch.input_ids.tolist() == [
        [1, 2, 3, EOS, EOS, EOS],
        [1, EOS, EOS, EOS, EOS, EOS],
        [1, 2, 4, 5, 6, EOS],
        [1, 8, EOS, EOS, EOS, EOS],
    ]
    assert batch.attention_mask.sum(1).tolist() == [4, 2, 6, 3]
    assert batch.response_mask.int().tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 1, 1, 0, 0, 0],
    ]
    assert batch.response_mask.dtype == torch.bool
    assert batch.pair_ids.tolist() == [4, 7]
    assert batch.prompt_lengths.tolist() == [2, 1]
    assert (batch.chosen_lengths.tolist(), batch.rejected_lengths.tolist()) == ([2, 1], [4, 2])
    assert (batch.pairs, batch.tokens) == (2, 15)
    assert batch.tokens == int(batch.attention_mask.sum())
    assert batch.chosen_scores is batch.rejected_scores is batch.groups is None


def test_scores_groups_and_moving() -> None:
    rows = [{**row, "chosen_score": 2.0, "rejected_score": 1, "group": "g"} for row in ROWS]
    batch = collate(rows, pad_id=0).to("meta")
    assert batch.groups == ("g", "g")
    assert batch.input_ids.device.type == "meta"
    assert batch.chosen_scores is not None
    assert (batch.chosen_scores.dtype, batch.chosen_scores.device.type) == (torch.float32, "meta")


@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_an_empty_side_raises_and_names_the_pair(side: str) -> None:
    with pytest.raises(DataError, match=f"Pair 7: {side}_ids is empty"):
        collate([ROWS[0], {**ROWS[1], f"{side}_ids": []}], pad_id=0)


def test_batches_follow_the_indices_and_leave_texts_behind() -> None:
    rows = [{**ROWS[n % 2], "pair_id": n, "prompt_text": "p", "group": str(n)} for n in range(6)]
    batches = list(batches_of(Dataset.from_list(rows), [5, 0, 3, 3, 1], 2, pad_id=0))
    assert [batch.pair_ids.tolist() for batch in batches] == [[5, 0], [3, 3], [1]]
    assert batches[0].groups == ("5", "0")


def test_only_collating_imports_torch() -> None:
    modules = "sources, formats, rows, rendering, tokens, prepare, splits, noise, stream, summary"
    code = (
        f"import sys\nfrom alignzoo.data import {modules}\n"
        "assert not {'torch', 'datasets', 'transformers', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_pair_of_a_batch_is_the_pair_collated_alone() -> None:
    rows = [
        {"pair_id": 3, "prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]},
        {"pair_id": 7, "prompt_ids": [6, 7, 8], "chosen_ids": [9, 10, 11], "rejected_ids": [12]},
    ]
    short = {"pair_id": 7, "prompt_ids": [7, 8], "chosen_ids": [9, 10], "rejected_ids": [12]}
    whole = collate(rows, pad_id=0)
    for found, expected in ((whole.pair(0), rows[0]), (whole.pair(1), rows[1]), (whole.pair(1, most=2), short)):
        alone = collate([expected], pad_id=0)
        for name, value in vars(alone).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(found, name), value), name
