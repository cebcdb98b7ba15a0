"""Wrappers that replace the mean over the step: kldpo, cvar, trim, chi2-dro, doro, group-dro and dro-calibrated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from alignzoo_robust.tails import worst_case
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import PairBatch, load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import RobustWrapper
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Wrapping
from alignzoo.testing.sample import sample_of

close = torch.testing.assert_close
vectors = st.lists(st.floats(-50, 50), min_size=1, max_size=12).map(lambda x: torch.tensor(x, dtype=torch.float64))
shares = st.floats(0.05, 1)


def on_dpo(name: str, **options: Any) -> torch.Tensor:
    return load_method("robust", name, **options).objective(load_method("loss", "dpo", beta=0.1)(golden_pairs()))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("kldpo", {"tau": 0.05}, 2.388825),
        ("cvar", {"alpha": 0.5}, 0.749376),
        ("trim", {"epsilon": 0.5}, 0.526816),
        ("chi2-dro", {"alpha": 0.5}, 0.777799),
    ],
)
def test_step_wrappers_equal_golden_values(name: str, options: Any, expected: float) -> None:
    assert float(on_dpo(name, **options)) == pytest.approx(expected, abs=1e-6)


def test_kldpo_weights_equal_golden_values() -> None:
    losses = load_method("loss", "dpo", beta=0.1)(golden_pairs())
    weights = 4 * load_method("robust", "kldpo", tau=0.05).weights(losses)
    close(weights, torch.tensor([0.449716, 10, 1.134301, 0.025937], dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kldpo", {"tau": 1e12}),
        ("cvar", {"alpha": 1.0}),
        ("trim", {"epsilon": 0.0}),
        ("chi2-dro", {"alpha": 1.0}),
        ("chi2-dro", {"alpha": 1 - 1e-9}),
        ("doro", {"epsilon": 0.0, "alpha": 1.0}),
        ("doro", {"epsilon": 0.0, "alpha": 1.0, "inner": "chi2"}),
    ],
)
@given(losses=vectors)
def test_limits_are_the_mean(name: str, options: Any, losses: torch.Tensor) -> None:
    close(load_method("robust", name, **options).objective(losses), losses.mean(), atol=1e-6, rtol=1e-6)


@given(losses=vectors, share=st.floats(0, 0.9), alpha=shares)
def test_tails_are_ordered(losses: torch.Tensor, share: float, alpha: float) -> None:
    """trim ≤ mean ≤ cvar ≤ the highest; χ² lies between the mean and the highest; weights sum to 1 and are ≥ 0."""
    options: dict[str, Any] = {
        "trim": {"epsilon": share},
        "cvar": {"alpha": alpha},
        "chi2-dro": {"alpha": alpha},
        "doro": {"epsilon": share, "alpha": alpha},
    }
    found = {name: load_method("robust", name, **given) for name, given in options.items()}
    value = {name: float(wrapper.objective(losses)) for name, wrapper in found.items()}
    mean, most, slack = float(losses.mean()), float(losses.max()), 1e-6
    assert value["trim"] <= mean + slack
    assert mean - slack <= value["cvar"] <= most + slack
    assert mean - slack <= value["chi2-dro"] <= most + slack
    for wrapper in found.values():
        weights = wrapper.weights(losses)
        assert float(weights.sum()) == pytest.approx(1)
        assert float(weights.min()) >= 0


@given(losses=vectors, alpha=st.floats(0.1, 0.99))
def test_chi2_weights_solve_the_dual(losses: torch.Tensor, alpha: float) -> None:
    """min over η of C·√(mean (ℓ − η)₊²) + η, by golden-section search, and mean (N·w)² ≤ C²."""
    size = (1 + (1 / alpha - 1) ** 2) ** 0.5

    def dual(eta: float) -> float:
        return size * float((losses - eta).clamp(min=0).square().mean().sqrt()) + eta

    spread = float(losses.max() - losses.min()) + 1e-3
    low, high = float(losses.min()) - spread * 200 / (1 - alpha), float(losses.max())
    ratio = (5**0.5 - 1) / 2
    for _ in range(300):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if dual(left) < dual(right) else (left, high)
    wrapper = load_method("robust", "chi2-dro", alpha=alpha)
    assert float(wrapper.objective(losses)) == pytest.approx(dual((low + high) / 2), abs=1e-5, rel=1e-6)
    assert float((len(losses) * wrapper.weights(losses)).square().mean()) <= size**2 + 1e-6


@given(losses=vectors, alpha=shares)
def test_doro_without_outliers(losses: torch.Tensor, alpha: float) -> None:
    for inner, alone in (("cvar", "cvar"), ("chi2", "chi2-dro")):
        wrapper = load_method("robust", "doro", epsilon=0.0, alpha=alpha, inner=inner)
        close(wrapper.weights(losses), load_method("robust", alone, alpha=alpha).weights(losses), atol=1e-12, rtol=0)


def test_chi2_weights_do_not_depend_on_the_scale() -> None:
    """Of losses that are told apart: the wrapper takes those within 1e-6 for equal."""
    losses, wrapper = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), load_method("robust", "chi2-dro")
    weights, everyone = wrapper.weights(losses), torch.ones_like(losses)
    for scale in (1e-209, 1e-3, 1e150):
        close(worst_case(scale * losses, 0.5, everyone), weights, rtol=1e-12, atol=0)
    for scale in (1e-3, 1e150):
        close(wrapper.weights(scale * losses), weights, rtol=1e-12, atol=0)
    close(wrapper.weights(1e-7 * losses), everyone / 3)


def test_ties_share_the_last_places() -> None:
    losses = torch.tensor([1.0, 3.0, 2.0, 2.0, 2.0])
    close(load_method("robust", "cvar", alpha=0.4).weights(losses), torch.tensor([0, 1 / 2, 1 / 6, 1 / 6, 1 / 6]))
    close(load_method("robust", "trim", epsilon=0.4).weights(losses), torch.tensor([3, 0, 2, 2, 2]) / 9)


def test_metrics_of_doro_are_of_the_losses_that_it_drops() -> None:
    """The highest two are equal but for rounding, and share the one place that is dropped: none is dropped alone."""
    losses = torch.tensor([1.0, 1.0 + 1e-9, 0.5, 0.2], dtype=torch.float64)
    wrapper = load_method("robust", "doro", epsilon=0.25, alpha=1.0)
    assert bool((wrapper.weights(losses) > 0).all())
    found = wrapper.metrics(losses, None)
    assert float(found["dropped"]) == 0
    assert float(found["highest_loss"]) == 1.0 + 1e-9


def test_one_pair_is_never_dropped() -> None:
    for name in ("trim", "doro", "cvar", "chi2-dro"):
        assert float(load_method("robust", name).objective(torch.tensor([0.7]))) == pytest.approx(0.7)


# ---------------------------------------------------------------- group-dro


def grouped(losses: torch.Tensor, groups: list[int]) -> tuple[torch.Tensor, PairBatch]:
    ones = torch.ones_like(losses)
    return losses, PairBatch(losses, losses, ones, ones, groups=torch.tensor(groups))


def test_group_dro_equals_golden_value() -> None:
    """In a step, the weights move before the gradient is taken."""
    wrapper = load_method("robust", "group-dro", eta=0.01)
    objective = Objective(load_method("loss", "dpo", beta=0.1), [Wrapping(wrapper, "group-dro", True)])
    responses = ResponseBatch.of_pairs(replace(golden_pairs(), groups=torch.tensor([0, 0, 1, 1])))
    objective.observe(responses, coupled=True)
    assert float(objective.value(responses)) == pytest.approx(0.638174, abs=1e-6)
    shares = torch.softmax(wrapper.state_dict()["log_weights"], 0)
    close(shares, torch.tensor([0.500441, 0.499559], dtype=torch.float64), atol=1e-6, rtol=0)
    close(objective.weights(responses), shares.repeat_interleave(2) / 2)


@given(losses=vectors, eta=st.floats(0, 5))
def test_one_group_is_the_mean(losses: torch.Tensor, eta: float) -> None:
    wrapper = load_method("robust", "group-dro", eta=eta)
    values, pairs = grouped(losses, [3] * len(losses))
    wrapper.observe(values, pairs)
    close(wrapper.reduce(values, pairs), losses.mean(), atol=1e-9, rtol=1e-9)


def test_absent_groups_keep_their_weight() -> None:
    """q ← q·exp(η·ℓ_g)/Z over the groups of a step; the others keep their share; a new one starts like the others."""
    wrapper, q = load_method("robust", "group-dro", eta=0.5), torch.ones(3, dtype=torch.float64)
    steps = [([0.2, 1.0, 3.0], [0, 1, 2]), ([4.0, 2.0, 0.5], [0, 0, 1]), ([9.0], [2])]
    for losses, groups in steps:
        values, pairs = grouped(torch.tensor(losses, dtype=torch.float64), groups)
        present = sorted(set(groups))
        means = torch.stack([values[torch.tensor(groups) == g].mean() for g in present])
        moved = q[present] * torch.exp(0.5 * means)
        q[present] = moved * q[present].sum() / moved.sum()
        wrapper.observe(values, pairs)
        close(wrapper.state_dict()["log_weights"].exp(), q)
        close(wrapper.reduce(values, pairs), (q[present] * means).sum() / q[present].sum())
    assert float(q.sum()) == pytest.approx(3)
    new, pairs = grouped(torch.tensor([1.0, 2.0], dtype=torch.float64), [0, 7])
    close(wrapper.reduce(new, pairs), (q[0] + 2) / (q[0] + 1))


def test_groups_of_responses_and_of_lists() -> None:
    for reads, name in (("responses", "kto"), ("lists", "pl-dpo")):
        batch: Any = sample_of(reads, None)  # type: ignore[arg-type]
        losses = load_method("loss", name)(batch).detach()
        wrapper = load_method("robust", "group-dro", eta=0.0)
        own = torch.arange(8) % 3
        expected = torch.stack([losses[own == g].mean() for g in range(3)]).mean()
        close(wrapper.reduce(losses, batch), expected)


# ---------------------------------------------------------------- dro-calibrated


def test_calibrated_dro_equals_golden_value() -> None:
    """c = ½ everywhere: w = 1."""
    half = (0.5,) * 4
    pairs = golden_pairs(chosen_scores=half, rejected_scores=half)
    losses = load_method("loss", "dpo", beta=0.1)(pairs)
    for options in ({}, {"alpha": 1.0}):
        found = load_method("robust", "dro-calibrated", temperature=1.0, **options).reduce(losses, pairs)
        assert float(found) == pytest.approx(0.648461, abs=1e-6)


@given(c=st.lists(st.floats(0.01, 1), min_size=8, max_size=8), alpha=st.floats(0.05, 0.95))
def test_calibration_equals_the_authors(c: list[float], alpha: float) -> None:
    """1/(α + α_k·(1 − c)/c), averaged over the candidates."""
    pairs = golden_pairs(chosen_scores=tuple(c[:4]), rejected_scores=tuple(c[4:]))
    probabilities = torch.tensor(c, dtype=torch.float64).reshape(2, 4)
    expected = (1 / (alpha + (1 - alpha) * (1 - probabilities) / probabilities)).mean(0)
    close(load_method("robust", "dro-calibrated", alpha=alpha).calibration(pairs, 4), expected)
    logit = torch.logit(probabilities)
    logits = replace(pairs, chosen_scores=logit[0], rejected_scores=logit[1])
    by_logit = load_method("robust", "dro-calibrated", alpha=alpha, scores="logit").calibration(logits, 4)
    close(by_logit, expected)


def test_scores_that_are_no_probabilities_are_counted() -> None:
    pairs = golden_pairs(chosen_scores=(0.5, 3.0, 0.2, 0.1), rejected_scores=(0.5, 0.4, -0.2, 0.9))
    found = load_method("robust", "dro-calibrated").metrics(torch.ones(4), pairs)
    assert float(found["outside"]) == 0.5


def test_calibration_of_responses_and_of_lists() -> None:
    wrapper = load_method("robust", "dro-calibrated", scores="logit")
    for reads in ("responses", "lists"):
        batch: Any = sample_of(reads, None)  # type: ignore[arg-type]
        own = batch.of_role(0)
        w = 2 * own.scores.sigmoid()
        expected = torch.stack([w[own.prompt == prompt].mean() for prompt in range(8)])
        close(wrapper.calibration(batch, 8), expected)


@given(losses=vectors)
def test_weights_are_those_of_the_objective(losses: torch.Tensor) -> None:
    for name in ("kldpo", "cvar", "trim", "chi2-dro", "doro"):
        wrapper = load_method("robust", name)
        close(wrapper.weights(losses), RobustWrapper.weights(wrapper, losses), atol=1e-9, rtol=1e-9)
