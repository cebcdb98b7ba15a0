"""Micro-batches of a step: cut by rows or by tokens, of a dataset with any number of responses per row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from alignzoo.data.batches import Batches, Sizes, StepBatches, by_length
from alignzoo.data.collate import TokenBatch
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.data.stream import PairStream
from alignzoo.testing.tiny import random_rows

PACKED, LONGEST = [9, 30, 5, 14, 8, 21, 3, 50], [6, 20, 4, 9, 5, 15, 2, 40]
LENGTHS = Lengths(np.array(PACKED), np.array(LONGEST), np.full(8, 2))
COUNTS = [1, 3, 2, 2, 1, 4, 2, 1]
ROWS = Dataset.from_list(random_rows(COUNTS, seed=2))
PARTNERS = np.array([5, 0, 1, 2, 3, 4, 0, 6])


@pytest.mark.parametrize("packed", [True, False])
def test_a_budget_of_tokens_is_kept_and_no_row_is_lost(packed: bool) -> None:
    sizes = Sizes(4, 48, packed)
    [groups] = sizes.cut([list(range(8))], LENGTHS)
    assert sorted(row for group in groups for row in group) == list(range(8))
    for group in groups:
        assert sizes.cost(group, LENGTHS) <= 48 or len(group) == 1
    fewer = -(-sum(LENGTHS.packed[:7]) // 48) + 1
    assert not packed or len(groups) == fewer, "the seven shorter rows as tight as they go, the longest one alone"


@pytest.mark.parametrize("packed", [True, False])
def test_the_cost_of_a_group_is_the_tokens_of_its_forward_pass(packed: bool) -> None:
    lengths = lengths_of(ROWS, PARTNERS)
    for batch in by_length(ROWS, Sizes(3, 90, packed), 0, shape="ranked", partners=PARTNERS):
        rows = batch.row_ids.tolist()
        assert batch.pack is not None
        tokens = batch.pack.input_ids if packed else batch.input_ids
        assert Sizes(3, 90, packed).cost(rows, lengths) == tokens.numel()


def test_ranks_have_equally_many_groups_under_a_budget() -> None:
    cuts = Sizes(4, 60, True).cut([[0, 2, 4, 6], [1, 3, 5, 7]], LENGTHS)
    assert [len(groups) for groups in cuts] == [3, 3]
    assert [sorted(row for group in groups for row in group) for groups in cuts] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_without_a_budget_rows_stay_in_order() -> None:
    assert Sizes(2).cut([[5, 1, 3]], LENGTHS) == [[[5, 1], [3]]]


def source(**changes: object) -> StepBatches:
    """Steps of four rows in micro-batches of two."""
    given: dict[str, object] = {"dataset": ROWS, "shape": "ranked", "stream": PairStream(8, 4, 0), "steps": 3}
    given |= {"sizes": Sizes(2), "lengths": lengths_of(ROWS), "pad_id": 0, "rank": 0, "world": 1}
    return StepBatches(**{**given, **changes})  # type: ignore[arg-type]


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    in_order, alone = source(), source()
    last = [in_order(step) for step in range(3)][-1]
    for found, expected in zip(alone(2), last, strict=True):
        assert torch.equal(found.input_ids, expected.input_ids)
        assert found.sizes == expected.sizes


def test_ranks_share_a_step() -> None:
    whole = [row for batch in source()(0) for row in batch.row_ids.tolist()]
    shares = [[row for batch in source(rank=rank, world=2)(0) for row in batch.row_ids.tolist()] for rank in (0, 1)]
    assert shares[0] + shares[1] == whole == PairStream(8, 4, 0).indices(0)


def test_mismatched_responses_follow_a_rows_own_repeated_where_the_partner_has_fewer() -> None:
    for batch in source(partners=PARTNERS, lengths=lengths_of(ROWS, PARTNERS))(1):
        assert batch.roles is not None
        place = 0
        for row in batch.row_ids.tolist():
            own, others = ROWS[row]["response_ids"], ROWS[int(PARTNERS[row])]["response_ids"]
            expected = [*own, *(others[i % len(others)] for i in range(len(own)))]
            found = [batch.input_ids[place + i][batch.response_mask[place + i]].tolist() for i in range(len(expected))]
            assert found == expected
            assert batch.roles[place : place + len(expected)].tolist() == [0] * len(own) + [1] * len(own)
            place += len(expected)
        assert place == batch.responses


def test_another_source_of_batches_can_stand_in() -> None:
    """What a run asks of its batches is a call with the step's number."""

    def generated(step: int) -> list[TokenBatch]:
        return source()(step)

    given: Batches = generated
    assert [batch.rows for batch in given(0)] == [2, 2]
