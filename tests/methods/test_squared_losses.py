"""Squared losses: TRL, and limits to one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st
from trl_dpo import step_of_trl

from alignzoo import load_method
from alignzoo.testing.sample import sample

seeds = st.integers(0, 10_000)


@pytest.mark.parametrize(("name", "loss_type", "beta"), [("sppo-hard", "sppo_hard", 0.05)])
def test_squared_losses_equal_trl(name: str, loss_type: str, beta: float, tmp_path: Path) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights."""
    pytest.importorskip("trl")
    theirs, responses = step_of_trl(tmp_path, loss_type=[loss_type], beta=beta)
    ours = load_method("loss", name, beta=beta)(responses.pairs()).mean()
    assert float(ours) == pytest.approx(theirs, rel=2e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rebel", {"eta": 2.0, "form": "code"}),
        ("bfpo", {"beta": 0.25}),
        ("mallows-ipo", {"beta": 0.25, "dispersion_scale": 0.5}),
    ],
)
@given(seed=seeds)
def test_limits_to_ipo(name: str, options: Any, seed: int) -> None:
    """A difference in scores of 1, safe responses, φ = 1: a target margin of 2 nats."""
    pairs = sample(seed=seed, spread=2.0)
    ones, entropy = torch.ones(len(pairs), dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64).exp()
    pairs = replace(
        pairs,
        chosen_scores=ones,
        rejected_scores=0 * ones,
        chosen_safe=ones,
        rejected_safe=ones,
        ref_chosen_entropies=entropy * pairs.chosen_lengths,
        ref_rejected_entropies=entropy * pairs.rejected_lengths,
    )
    ipo = load_method("loss", "ipo", tau=0.25, logps="sum")
    torch.testing.assert_close(load_method("loss", name, **options)(pairs), ipo(pairs), atol=1e-9, rtol=1e-9)


@given(seed=seeds)
def test_sppo_is_ipo_of_opposite_log_ratios(seed: int) -> None:
    """With b = −a: (a − t)² + (−a + t)² = ½·(2a − 2t)²."""
    pairs = sample({"reference"}, seed=seed)
    chosen, _ = pairs.log_ratios()
    pairs = replace(pairs, rejected_logps=pairs.ref_rejected_logps - chosen)  # type: ignore[operator]
    sppo, ipo = load_method("loss", "sppo-hard", beta=0.1), load_method("loss", "ipo", tau=0.05, logps="sum")
    torch.testing.assert_close(sppo(pairs), ipo(pairs) / 2, atol=1e-9, rtol=1e-9)


@given(seed=seeds, beta=st.floats(0.001, 1))
def test_cal_dpo_is_dpo_and_half_of_sppo(seed: int, beta: float) -> None:
    pairs = sample({"reference"}, seed=seed)
    dpo, sppo = load_method("loss", "dpo", beta=1.0), load_method("loss", "sppo-hard", beta=beta)
    expected = dpo(pairs) + sppo(pairs) / 2
    torch.testing.assert_close(load_method("loss", "cal-dpo", beta=beta)(pairs), expected, atol=1e-9, rtol=1e-12)


@given(seed=seeds, eta=st.floats(0.1, 100))
def test_rebel_does_not_read_the_label(seed: int, eta: float) -> None:
    pairs = sample({"reference", "scores"}, seed=seed)
    paper = load_method("loss", "rebel", eta=eta)
    torch.testing.assert_close(paper(pairs.swap()), paper(pairs), atol=1e-12, rtol=1e-12)
    code = load_method("loss", "rebel", eta=eta, form="code")
    torch.testing.assert_close(code(pairs), eta**2 * paper(pairs), atol=1e-9, rtol=1e-9)


def test_bfpo_ranks_the_four_kinds_of_pairs() -> None:
    safe = {"chosen_safe": (1.0, 1.0, 0.0, 0.0), "rejected_safe": (0.0, 1.0, 0.0, 1.0)}
    target = load_method("loss", "bfpo", beta=0.1).target(golden_pairs(**safe))
    torch.testing.assert_close(target, torch.tensor([10.0, 5.0, -5.0, -10.0], dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "missing"), [("rebel", "scores"), ("bfpo", "safety labels"), ("mallows-ipo", "entropies")]
)
def test_a_missing_field_is_named(name: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"no {missing}"):
        load_method("loss", name)(golden_pairs())
