"""Every pair once per epoch, every step full, and a function of the step number alone."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.collate import batches_of
from alignzoo.data.stream import PairStream
from alignzoo.errors import DataError, UsageError


@given(st.integers(1, 30), st.integers(1, 40), st.integers(-3, 3))
def test_each_epoch_is_a_permutation_and_each_step_is_full(n: int, batch_size: int, seed: int) -> None:
    stream = PairStream(n, batch_size, seed)
    steps = [stream.indices(step) for step in range(stream.steps(3))]
    assert {len(step) for step in steps} == {batch_size}
    seen = [pair for step in steps for pair in step]
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(st.integers(1, 30), st.integers(1, 40), st.permutations(range(6)))
def test_a_step_does_not_depend_on_the_steps_asked_before(n: int, batch_size: int, order: list[int]) -> None:
    stream = PairStream(n, batch_size, 7)
    for step in order:
        assert stream.indices(step) == PairStream(n, batch_size, 7).indices(step)


def test_epochs_and_seeds_differ() -> None:
    stream = PairStream(100, 100, 1)
    assert len({tuple(order) for order in (stream.indices(0), stream.indices(1))}) == 2
    assert stream.indices(0) != PairStream(100, 100, -1).indices(0)


def test_steps_round_up_without_binary_fractions() -> None:
    assert PairStream(10, 4, 0).steps(1) == 3
    assert PairStream(10, 4, 0).steps(2) == 5
    assert PairStream(10, 1, 0).steps(0.3) == 3
    assert PairStream(100, 1, 0).steps(1.1) == 110
    assert PairStream(3, 8, 0).steps(0.5) == 1


@pytest.mark.parametrize("step", [3, 7, 12])
def test_resuming_reads_no_row_of_an_earlier_step(step: int) -> None:
    rows = [{"row_id": n, "prompt_ids": [1, n], "response_ids": [[n], [3] * (n % 4 + 1)]} for n in range(40)]
    wanted = PairStream(40, 4, 7).indices(step)
    # A batch refuses a pair without tokens, and so tells of any other row that it was given.
    only = [row if n in wanted else {**row, "prompt_ids": []} for n, row in enumerate(rows)]
    with pytest.raises(DataError, match="the prompt has no token"):
        list(batches_of(Dataset.from_list(only), PairStream(40, 4, 7).indices(0), 2, 0, shape="pairs"))
    resumed = list(batches_of(Dataset.from_list(only), PairStream(40, 4, 7).indices(step), 2, 0, shape="pairs"))
    stream = PairStream(40, 4, 7)
    steps = [list(batches_of(Dataset.from_list(rows), stream.indices(k), 2, 0, shape="pairs")) for k in range(step + 1)]
    assert [batch.row_ids.tolist() for batch in resumed] == [batch.row_ids.tolist() for batch in steps[-1]]
    for one, other in zip(resumed, steps[-1], strict=True):
        assert torch.equal(one.input_ids, other.input_ids)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 1), (1, 0)])
def test_sizes_must_be_positive(n: int, batch_size: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        PairStream(n, batch_size, 0)
