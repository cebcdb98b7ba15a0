"""Logistic losses: TRL, the authors, limits and minima."""

from __future__ import annotations

import math
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


@pytest.mark.parametrize(
    ("name", "options", "loss_type", "beta"),
    [
        ("dpo-norm", {"beta": 5.0}, "sigmoid_norm", 5.0),
        ("nca-pair", {"beta": 0.3}, "nca_pair", 0.3),
    ],
)
def test_logistic_losses_equal_trl(name: str, options: Any, loss_type: str, beta: float, tmp_path: Path) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights."""
    pytest.importorskip("trl")
    theirs, responses = step_of_trl(tmp_path, loss_type=[loss_type], beta=beta)
    ours = load_method("loss", name, **options)(responses.pairs()).mean()
    assert float(ours) == pytest.approx(theirs, rel=2e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpop", {"penalty": 0.0}),
        ("r-dpo", {"alpha": 0.0}),
        ("dpo-shift", {"rejected_weight": 1.0}),
        ("odpo", {"alpha": 0.0}),
        ("odpo", {}),
        ("odpo", {"offset": "log-ratio", "floor": 10.0}),
    ],
)
@given(seed=seeds)
def test_limits_to_dpo(name: str, options: Any, seed: int) -> None:
    pairs = sample(seed=seed, spread=2.0)
    ones = torch.ones(len(pairs), dtype=torch.float64)
    pairs = replace(pairs, chosen_scores=ones, rejected_scores=0 * ones)  # a gap of 1, of which the log is 0
    ours, dpo = load_method("loss", name, beta=0.3, **options), load_method("loss", "dpo", beta=0.3)
    torch.testing.assert_close(ours(pairs), dpo(pairs), atol=1e-12, rtol=0)


@given(seed=seeds, beta=st.floats(0.1, 5))
def test_dpo_norm_is_dpo_on_averages(seed: int, beta: float) -> None:
    pairs = sample({"reference"}, seed=seed)
    averaged = replace(
        pairs,
        chosen_logps=pairs.chosen_logps / pairs.chosen_lengths,
        rejected_logps=pairs.rejected_logps / pairs.rejected_lengths,
        ref_chosen_logps=pairs.ref_chosen_logps / pairs.chosen_lengths,
        ref_rejected_logps=pairs.ref_rejected_logps / pairs.rejected_lengths,
        aggregation="mean",
    )
    norm, dpo = load_method("loss", "dpo-norm", beta=beta), load_method("loss", "dpo", beta=beta)
    torch.testing.assert_close(norm(pairs), dpo(averaged), atol=1e-12, rtol=0)
    torch.testing.assert_close(norm(averaged), dpo(averaged), atol=0, rtol=0)  # averages are not divided again


@given(seed=seeds)
def test_dpop_costs_more_only_where_the_chosen_response_falls(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    dpop, dpo = load_method("loss", "dpop", beta=0.1), load_method("loss", "dpo", beta=0.1)
    more, chosen = dpop(pairs) - dpo(pairs), pairs.log_ratios()[0]
    assert (more[chosen >= 0].abs() < 1e-12).all()
    assert (more[chosen < -1e-6] > 0).all()


def test_r_dpo_is_least_at_the_policy_that_pays_for_length() -> None:
    """The optimum of E[r − α·|y|] − β·KL over four responses, by enumeration, is the minimum of the loss under
    preferences drawn from r (Bradley–Terry)."""
    alpha, beta = 0.2, 0.7
    reward = torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=torch.float64)
    length = torch.tensor([3.0, 1.0, 8.0, 5.0], dtype=torch.float64)
    reference = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()
    best = (reference + (reward - alpha * length) / beta).log_softmax(0).requires_grad_(True)
    chosen, rejected = (~torch.eye(4, dtype=torch.bool)).nonzero(as_tuple=True)
    pairs = replace(
        golden_pairs(),
        chosen_logps=best[chosen],
        rejected_logps=best[rejected],
        chosen_lengths=length[chosen],
        rejected_lengths=length[rejected],
        ref_chosen_logps=reference[chosen],
        ref_rejected_logps=reference[rejected],
    )
    likelihood = torch.sigmoid(reward[chosen] - reward[rejected])
    values = load_method("loss", "r-dpo", alpha=alpha, beta=beta)(pairs)
    (gradient,) = torch.autograd.grad((likelihood * values).sum(), best)
    torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("first", "last"), [(0.95, 1.0), (1.0, 0.5)])
def test_dpo_shift_moves_with_the_run(first: float, last: float) -> None:
    moving = load_method("loss", "dpo-shift", rejected_weight=first, final_rejected_weight=last)
    for progress in (0.0, 0.25, 1.0):
        pairs = replace(golden_pairs(), progress=progress)
        fixed = load_method("loss", "dpo-shift", rejected_weight=(1 - progress) * first + progress * last)
        torch.testing.assert_close(moving(pairs), fixed(pairs), atol=1e-12, rtol=0)


def test_dpo_shift_raises_the_chosen_response_relative_to_the_rejected() -> None:
    pairs = golden_pairs()
    chosen, rejected = pairs.chosen_logps.requires_grad_(True), pairs.rejected_logps.requires_grad_(True)
    values = load_method("loss", "dpo-shift", rejected_weight=0.6)(pairs)
    up, down = torch.autograd.grad(values.sum(), (chosen, rejected))
    torch.testing.assert_close(down, -0.6 * up, atol=1e-12, rtol=0)


def test_nca_settles_at_a_finite_log_ratio() -> None:
    beta = 0.5
    pairs = golden_pairs()
    log_ratio = torch.full((4,), math.log(2) / beta, dtype=torch.float64)
    chosen = (pairs.ref_chosen_logps + log_ratio).requires_grad_(True)  # type: ignore[operator]
    values = load_method("loss", "nca-pair", beta=beta)(replace(pairs, chosen_logps=chosen))
    (gradient,) = torch.autograd.grad(values.sum(), chosen)
    torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


def test_odpo_asks_almost_nothing_of_ties_and_contradicted_pairs() -> None:
    scores = {"chosen_scores": (1.0, 0.0, 0.0, 2.0), "rejected_scores": (1.0, 3.0, 0.0, 0.5)}
    values = load_method("loss", "odpo", floor=1e-6)(golden_pairs(**scores))
    assert torch.isfinite(values).all()
    assert (values[:3] < 1e-5).all()
    assert values[3] > 0.1


def test_odpo_without_scores_says_so() -> None:
    with pytest.raises(ValueError, match="no scores"):
        load_method("loss", "odpo")(golden_pairs())
