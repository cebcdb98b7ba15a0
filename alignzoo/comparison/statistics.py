"""Means over seeds, paired differences and their tests: scipy and statsmodels at work."""

from __future__ import annotations

import gc
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from alignzoo.comparison.results import MOST_SEEDS, Difference, OverSeeds, Test

CONFIDENCE, ALPHA, POWER = 0.95, 0.05, 0.80
DECIMALS = 12
"""Differences are rounded to these, so that equal ones tie whatever floating point made of them."""
RESAMPLES = 10_000
"""Of the permutation test, which is exact up to 13 seeds."""


def over_seeds(values: Mapping[int, float]) -> OverSeeds:
    """The mean of one value or more with its 95 % interval from Student's t; values that are all the same have an
    interval without width, a single one has none."""
    import numpy as np
    from scipy import stats

    found = np.array(list(values.values()), dtype=float)
    mean = float(found.mean())
    if len(found) < 2:
        return OverSeeds(mean, None, None, dict(values))
    if np.ptp(found) == 0:
        same = float(found[0])
        return OverSeeds(same, same, same, dict(values))
    low, high = stats.t.interval(CONFIDENCE, len(found) - 1, loc=mean, scale=stats.sem(found))
    return OverSeeds(mean, float(low), float(high), dict(values))


def difference(
    here: Mapping[int, float], there: Mapping[int, float], *, detect: float | None = None
) -> Difference | None:
    """The values of one group minus those of another, over the seeds of both; None if they share none.

    Args:
        detect: the difference whose ``seeds_needed`` is asked for; None for the observed one.
    """
    seeds = [seed for seed in here if seed in there]
    if not seeds:
        return None
    values = {seed: round(here[seed] - there[seed], DECIMALS) for seed in seeds}
    between = over_seeds(values)
    spread = effect = None
    t = Test(_without_spread(between))
    if len(seeds) > 1 and between.low != between.high:
        from scipy import stats

        numbers = list(values.values())
        found = stats.ttest_1samp(numbers, 0.0)
        t, effect = Test(float(found.pvalue)), float(found.statistic) / math.sqrt(len(seeds))
        spread = float(stats.tstd(numbers))
    target = between.mean if detect is None else detect
    return Difference(
        over_seeds=between,
        t=t,
        wilcoxon=Test(_wilcoxon(list(values.values()))),
        permutation=Test(_permutation(list(values.values()))),
        effect=effect,
        detect=target,
        seeds_needed=seeds_needed(target / spread) if spread else None,
        detectable=spread * detectable_effect(len(seeds)) if spread else None,
    )


def holm(tests: Sequence[Test]) -> list[Test]:
    """The tests with Holm's adjusted p-values; those without a p-value are no part of the family."""
    from statsmodels.stats.multitest import multipletests

    defined = [test.p for test in tests if test.p is not None]
    gc.freeze()  # multipletests collects garbage every time, 0.1 s for each table
    adjusted = iter(multipletests(defined, method="holm")[1].tolist() if defined else [])
    gc.unfreeze()
    return [test if test.p is None else replace(test, adjusted=next(adjusted)) for test in tests]


def seeds_needed(effect: float) -> int | None:
    """The seeds with which a paired t-test at p < .05 sees an effect with a power of 80 %, at most ``MOST_SEEDS``; None
    for no effect."""
    if effect == 0:
        return None
    from statsmodels.stats.power import TTestPower

    def enough(seeds: int) -> bool:
        power = float(TTestPower().power(abs(effect), seeds, ALPHA, alternative="two-sided"))
        return power >= POWER or math.isnan(power)  # scipy's tail of a noncentral t far from 0, where the power is 1

    numbers = range(2, MOST_SEEDS)
    return 2 + bisect_left(numbers, True, key=enough)


@cache
def detectable_effect(seeds: int) -> float:
    """The smallest effect that a paired t-test at p < .05 sees with a power of 80 %, for at least 2 seeds."""
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(nobs=seeds, alpha=ALPHA, power=POWER, alternative="two-sided"))


def smallest_p(seeds: int) -> float:
    """The smallest p-value that a two-sided test of signs or ranks can give."""
    return 2 / 2**seeds


def _without_spread(between: OverSeeds) -> float | None:
    """The p-value of a t-test of equal differences: 1 if there is none at all, undefined otherwise."""
    return 1.0 if between.n > 1 and between.mean == 0 else None


def _wilcoxon(differences: list[float]) -> float | None:
    if len(differences) < 2:
        return None
    if not any(differences):
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(differences).pvalue)


def _permutation(differences: list[float]) -> float | None:
    """Of the mean, under all changes of sign."""
    if len(differences) < 2:
        return None
    if not any(differences):
        return 1.0
    import numpy as np
    from scipy import stats

    def mean(numbers: Any, axis: int) -> Any:
        return np.mean(numbers, axis=axis)

    found = stats.permutation_test(
        (differences,), mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)
