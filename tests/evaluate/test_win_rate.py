"""Win rates: both orders, ties, unparsed verdicts, and the length-controlled rate against other implementations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from alignzoo.evaluate.verdicts.win_rate import Compared, by_category, length_controlled, win_rate

WINNERS = st.sampled_from(["first", "second", "tie", None])
PAIRS = st.lists(st.builds(Compared, WINNERS, WINNERS, st.integers(0, 400), st.integers(0, 400)), min_size=1)
OTHER = {"first": "second", "second": "first", "tie": "tie", None: None}


def swapped(pair: Compared) -> Compared:
    """The same verdicts, asked of B against A."""
    return Compared(pair.b_first, pair.a_first, pair.length_b, pair.length_a, pair.category)


def simulated(n: int, effect: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    delta = rng.normal(30, 100, n).round()
    p = expit(intercept + effect * np.tanh(delta / delta.std()))
    return (rng.random(n) < p).astype(float), delta


@pytest.mark.parametrize(
    ("a_first", "b_first", "score"),
    [
        ("first", "second", 1.0),  # A wins in both orders
        ("second", "first", 0.0),
        ("first", "first", 0.5),  # the response shown first wins, whichever it is
        ("tie", "second", 0.75),
        ("tie", "tie", 0.5),
        (None, "second", 0.75),  # unparsed: as a tie
        (None, None, 0.5),
    ],
)
def test_a_pair_scores_the_mean_over_both_orders(a_first: str, b_first: str, score: float) -> None:
    assert Compared(a_first, b_first, 1, 1).score == score


def test_a_hand_counted_table() -> None:
    pairs = [
        Compared("first", "second", 10, 20, "x"),  # win
        Compared("first", "first", 10, 20, "x"),  # tie, inconsistent
        Compared("second", "first", 30, 20, "y"),  # loss
        Compared(None, "second", 10, 20, None),  # win by half, inconsistent
    ]
    found = win_rate(pairs)
    assert (found.n, found.wins, found.ties, found.losses, found.unparsed) == (4, 2, 1, 1, 1)
    assert found.rate.value == pytest.approx((1 + 0.5 + 0 + 0.75) / 4)
    assert found.bounds == pytest.approx((0.5, 0.625))  # the unparsed order lost, or won: one eighth of the points
    assert found.consistency.value == 0.5
    assert found.first_shown == pytest.approx(4 / 7)
    assert (found.length_a, found.length_b) == (15, 20)
    assert list(by_category(pairs)) == ["x", "y"]
    assert by_category(pairs)["x"].rate.value == 0.75


@settings(max_examples=30)
@given(PAIRS)
def test_b_against_a_is_one_minus_a_against_b(pairs: list[Compared]) -> None:
    one, other = win_rate(pairs), win_rate([swapped(pair) for pair in pairs])
    assert other.rate.value == pytest.approx(1 - one.rate.value)
    assert other.controlled.rate.value == pytest.approx(1 - one.controlled.rate.value, abs=1e-6)
    assert (other.wins, other.ties, other.losses) == (one.losses, one.ties, one.wins)
    assert other.bounds == pytest.approx((1 - one.bounds[1], 1 - one.bounds[0]))
    for figure in (one.rate, one.controlled.rate):
        assert all(math.isfinite(value) and -1e-9 <= value <= 1 + 1e-9 for value in (figure.low, figure.high))


@settings(max_examples=30)
@given(PAIRS)
def test_with_equal_lengths_the_controlled_rate_is_the_raw_one(pairs: list[Compared]) -> None:
    found = win_rate([replace(pair, length_a=7, length_b=7) for pair in pairs])
    assert found.controlled.rate.value == pytest.approx(found.rate.value, abs=1e-6)
    assert found.controlled.length_effect is None


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_scikit_learns(seed: int) -> None:
    """``LogisticRegression`` with its default C=1 penalises ½φ² and not the intercept; halves count on both sides."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 300))
    scores, delta = rng.choice([0, 0.25, 0.5, 0.75, 1], n), rng.normal(50, 200, n)
    x = np.tanh(delta / delta.std())
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(
        np.concatenate([x, x])[:, None],
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([scores, 1 - scores]),
    )
    found = length_controlled(scores, delta)
    assert found.rate.value == pytest.approx(expit(reference.intercept_[0]), abs=1e-5)
    assert found.length_effect == pytest.approx(reference.coef_[0, 0], abs=1e-4)


def test_a_closed_case() -> None:
    """A wins every pair in which it is longer, and as many of the others: by symmetry the controlled rate is ½ while
    the raw rate follows the lengths."""
    scores, delta = [1.0] * 30 + [0.0] * 10, [100.0] * 30 + [-100.0] * 10
    found = length_controlled([*scores, *[1 - s for s in scores]], [*delta, *[-d for d in delta]])
    assert found.rate.value == pytest.approx(0.5)
    assert found.length_effect is not None
    assert found.length_effect > 2


def test_a_planted_effect_is_recovered() -> None:
    scores, delta = simulated(5_000, effect=1.5, intercept=-0.4)
    found = length_controlled(scores, delta)
    assert found.length_effect == pytest.approx(1.5, abs=0.15)
    assert found.rate.value == pytest.approx(expit(-0.4), abs=0.03)
    assert scores.mean() > found.rate.high  # the raw rate has the length in it


def test_the_interval_covers_the_planted_rate() -> None:
    covered = 0
    for seed in range(20):
        found = length_controlled(*simulated(150, effect=1.0, intercept=0.3, seed=seed)).rate
        covered += found.low <= expit(0.3) <= found.high
    assert covered >= 17  # 19 expected


def test_when_all_is_won_the_figures_are_finite_and_say_so() -> None:
    found = win_rate([Compared("first", "second", 10 + i, 20) for i in range(5)])
    assert (found.rate.value, found.controlled.rate.value) == (1, 1)
    assert "won every comparison" in found.controlled.note


def test_length_that_separates_wins_from_losses_stays_finite() -> None:
    found = length_controlled([1.0] * 20 + [0.0] * 20, [50.0] * 20 + [-50.0] * 20)
    assert found.rate.value == pytest.approx(0.5)
    assert 0 < found.rate.low < found.rate.high < 1


def test_an_extrapolation_says_so() -> None:
    assert "extrapolation" in length_controlled([1.0, 0.0, 1.0], [5.0, 9.0, 2.0]).note
    assert "by the same amount" in length_controlled([1.0, 0.0, 1.0], [5.0, 5.0, 5.0]).note


def test_nothing_has_no_win_rate() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        win_rate([])
