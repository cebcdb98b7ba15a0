"""Statistics over seeds are those of scipy and statsmodels, and those that can be worked out by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from alignzoo.comparison.results import MOST_SEEDS, Difference
from alignzoo.comparison.results import Test as PairedTest
from alignzoo.comparison.statistics import (
    detectable_effect,
    difference,
    holm,
    over_seeds,
    seeds_needed,
    smallest_p,
)

HERE = [0.12, 0.17, 0.11, 0.20, 0.14, 0.13]
THERE = [0.21, 0.19, 0.24, 0.22, 0.27, 0.19]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def by_seed(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values))


def between(here: Sequence[float], there: Sequence[float], detect: float | None = None) -> Difference:
    found = difference(by_seed(here), by_seed(there), detect=detect)
    assert found is not None
    return found


def test_means_have_the_t_interval_of_scipy() -> None:
    found = over_seeds(by_seed(HERE))
    interval = stats.ttest_1samp(HERE, 0).confidence_interval(0.95)
    assert (found.mean, found.n) == (pytest.approx(np.mean(HERE)), 6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_an_interval_by_hand() -> None:
    # mean 2, standard deviation 1, standard error 1/√3, and t(.975, 2) = 4.3027
    found = over_seeds({0: 1.0, 1: 2.0, 2: 3.0})
    assert found.half == pytest.approx(4.302652729749464 / math.sqrt(3))


def test_a_difference_has_the_tests_of_scipy() -> None:
    found = between(HERE, THERE)
    assert found.t.p == pytest.approx(stats.ttest_rel(HERE, THERE).pvalue, rel=1e-9)
    rounded = np.round(np.subtract(HERE, THERE), 12)
    assert found.wilcoxon.p == stats.wilcoxon(rounded).pvalue
    exact = stats.permutation_test(
        (HERE, THERE), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.permutation.p == pytest.approx(exact.pvalue)
    interval = stats.ttest_rel(HERE, THERE).confidence_interval(0.95)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((interval.low, interval.high))


def test_the_effect_is_the_mean_difference_over_its_standard_deviation() -> None:
    # differences 1, 2, 3: mean 2, standard deviation 1
    assert between([1, 2, 3], [0, 0, 0]).effect == pytest.approx(2.0)


def test_tests_of_signs_and_ranks_by_hand() -> None:
    """All five differences negative: of 2⁵ signs only that and its mirror image are as extreme."""
    found = between([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert (found.wilcoxon.p, found.permutation.p) == (2 / 32, 2 / 32)
    assert smallest_p(5) == 2 / 32


def test_ties_are_ties_whatever_floating_point_makes_of_them() -> None:
    """Differences +.1 (three times) and −.1: of 16 signs, 10 leave a sum at least as far from 0."""
    here, there = [0.3, 0.8, 0.4, 0.1], [0.2, 0.7, 0.3, 0.2]
    assert len(set(np.abs(np.subtract(here, there)))) > 1
    found = between(here, there)
    assert found.wilcoxon.p == found.permutation.p == pytest.approx(10 / 16)
    assert found.wilcoxon.p == stats.wilcoxon([1, 1, 1, -1]).pvalue


def test_differences_of_0_are_left_to_scipy() -> None:
    found = between([0.5, 0.6, 0.8, 0.4], [0.5, 0.5, 0.5, 0.6])
    assert found.wilcoxon.p == stats.wilcoxon([0, 0.1, 0.3, -0.2]).pvalue
    assert found.t.p == pytest.approx(stats.ttest_1samp([0, 0.1, 0.3, -0.2], 0).pvalue)


def test_identical_runs_do_not_differ_at_all() -> None:
    found = between(HERE, HERE)
    assert found.zero
    assert (found.over_seeds.mean, found.over_seeds.low, found.over_seeds.high) == (0.0, 0.0, 0.0)
    assert [test.p for test in (found.t, found.wilcoxon, found.permutation)] == [1.0, 1.0, 1.0]
    assert (found.effect, found.seeds_needed, found.detectable) == (None, None, None)


def test_a_constant_difference_has_no_t_test() -> None:
    found = between([0.4, 0.5, 0.6], [0.3, 0.4, 0.5])
    assert (found.over_seeds.low, found.over_seeds.high) == (0.1, 0.1)
    assert (found.t.p, found.effect, found.seeds_needed) == (None, None, None)
    assert found.wilcoxon.p == found.permutation.p == 2 / 8


def test_differences_are_paired_over_the_common_seeds() -> None:
    found = difference({0: 0.1, 1: 0.2, 2: 0.3, 4: 0.9}, {1: 0.5, 2: 0.4, 3: 0.0, 0: 0.2})
    assert found is not None
    assert found.over_seeds.values == {0: -0.1, 1: -0.3, 2: -0.1}
    assert difference({0: 0.1}, {1: 0.1}) is None


def test_one_seed_proves_nothing() -> None:
    found = between([0.1], [0.4])
    assert (found.over_seeds.mean, found.over_seeds.low, found.over_seeds.high) == (-0.3, None, None)
    assert [test.p for test in (found.t, found.wilcoxon, found.permutation)] == [None, None, None]
    assert (found.effect, found.seeds_needed, found.detectable) == (None, None, None)


@pytest.mark.parametrize("effect", [0.05, 0.3, -0.5, 1.0, 2.0, 5.0])
def test_seeds_needed_are_those_of_statsmodels(effect: float) -> None:
    solved = TTestPower().solve_power(effect_size=abs(effect), alpha=0.05, power=0.8, alternative="two-sided")
    assert seeds_needed(effect) == math.ceil(float(solved))


def test_seeds_needed_have_two_ends() -> None:
    assert seeds_needed(1e6) == 2
    assert seeds_needed(1e-6) == MOST_SEEDS
    assert seeds_needed(0.0) is None


def test_what_the_seeds_can_see() -> None:
    """A difference of one detectable effect is seen with just the seeds at hand."""
    for seeds in (3, 5, 10):
        assert TTestPower().power(detectable_effect(seeds), seeds, 0.05) == pytest.approx(0.8)
        assert seeds_needed(detectable_effect(seeds) * 1.0001) == seeds
    spread = float(np.std(np.subtract(HERE, THERE), ddof=1))
    assert between(HERE, THERE).detectable == pytest.approx(spread * detectable_effect(6))
    assert between(HERE, THERE, detect=0.5 * spread).seeds_needed == seeds_needed(0.5) == 34


def test_holm_by_hand() -> None:
    """.01·3, .02·2, and .04 raised to the one before; undefined ones do not count."""
    tests = [PairedTest(0.04), PairedTest(None), PairedTest(0.01), PairedTest(0.02)]
    adjusted = [test.adjusted for test in holm(tests)]
    assert adjusted == [pytest.approx(0.04), None, pytest.approx(0.03), pytest.approx(0.04)]
    assert holm([PairedTest(None)]) == [PairedTest(None)]


def test_holm_is_that_of_statsmodels() -> None:
    p_values = [0.2, 0.01, 0.01, 0.9, 0.049, 0.0003, 1.0]
    expected = multipletests(p_values, method="holm")[1]
    assert [test.adjusted for test in holm([PairedTest(p) for p in p_values])] == list(expected)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=6))
def test_rates_never_give_nan(counts: list[tuple[int, int]]) -> None:
    """Whatever ties, zeros and constant differences there are among rates of 20 prompts."""
    found = between([here / 20 for here, _ in counts], [there / 20 for _, there in counts])
    numbers = [test.p for test in (found.t, found.wilcoxon, found.permutation)] + [found.effect, found.detectable]
    assert all(number is None or math.isfinite(number) for number in numbers)
    assert all(p is not None and 0 < p <= 1 for p in (found.wilcoxon.p, found.permutation.p))
    mirrored = between([there / 20 for _, there in counts], [here / 20 for here, _ in counts])
    assert mirrored.over_seeds.mean == pytest.approx(-found.over_seeds.mean)
    assert mirrored.permutation.p == pytest.approx(found.permutation.p)
