"""The estimate against published formulas and measurements; the table of docs/plan.md is made of the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def literature(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return __import__("plan_literature")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["work", "states"])
def test_what_is_counted_by_the_same_rule_is_the_same(literature: Any, kind: str) -> None:
    for row in getattr(literature, kind)():
        assert abs(row.difference) <= row.tolerance, row


@pytest.mark.slow
def test_a_65b_model_in_four_bits_fits_the_card_it_was_tuned_on(literature: Any) -> None:
    row = list(literature.measured())[-1]
    assert row.ours < row.published


def test_six_operations_per_weight_and_token(literature: Any) -> None:
    """Of a small model: Kaplan's rule, and Megatron's formula with the causal half of the attention scores."""
    literature.CONFIGS["small"] = lambda: literature.transformers.GPT2Config(
        n_embd=64, n_layer=3, n_head=4, n_positions=64, vocab_size=512
    )
    found = literature.planned("small", 64, 2)
    h, depth, s, v = 64, 3, 64, 512
    assert found.work.layers == 6 * 12 * h * h * depth * 2 * s
    assert found.work.head == 6 * h * v * 2 * (s - 1)
    assert found.work.attention == pytest.approx(3.5 * 4 * h * depth * 2 * s * s / 2)
