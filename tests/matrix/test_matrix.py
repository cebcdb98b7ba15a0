"""Every combination trains or is refused with a reason; there is no third outcome."""

from __future__ import annotations

from collections import Counter

import pytest
from matrix import Combination, Matrix, combinations, names, sample

SAMPLE, CHUNKS = 128, 8


def settle(matrix: Matrix, some: list[Combination], count: Counter[str]) -> None:
    """Count what the combinations do; all that have a third outcome are named."""
    third = []
    for combination in some:
        try:
            outcome = matrix.outcome(combination)
        except Exception as error:
            third.append(f"{combination}: {type(error).__name__}: {error}")
        else:
            count["trained" if outcome.refused is None else "refused"] += 1
    assert not third, f"{len(third)} of {len(some)} neither train nor are refused:\n" + "\n".join(third[:20])


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_sample_of_all_combinations(chunk: int, matrix: Matrix, count: Counter[str]) -> None:
    settle(matrix, sample(SAMPLE, seed=20261126)[chunk::CHUNKS], count)


@pytest.mark.matrix
@pytest.mark.parametrize("loss", names("loss"))
def test_all_combinations(loss: str, matrix: Matrix, count: Counter[str]) -> None:
    settle(matrix, combinations(loss), count)
