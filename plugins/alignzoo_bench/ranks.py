"""Ranks that a comparison supports: intervals that grow where differences are not significant."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignzoo.comparison.results import Test
from alignzoo.comparison.statistics import ALPHA, holm


@dataclass(frozen=True)
class Rank:
    """The ranks that a method may have: ``low`` is 1 + the methods that are significantly better, ``high`` the number
    of methods less those that are significantly worse."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


def rank_intervals(values: Mapping[str, Mapping[int, float]], *, higher: bool) -> dict[str, Rank]:
    """The ranks of methods by a figure, from paired t-tests between all of them under Holm's correction.

    With p < .05 in all tests together, the intervals contain all true ranks with a confidence of at least 95 %.

    Args:
        values: of each method by seed.
        higher: whether more is better.
    """
    pairs = list(itertools.combinations(values, 2))
    tested = [_paired(values[one], values[other]) for one, other in pairs]
    adjusted = holm([Test(p) for _, p in tested])
    better = dict.fromkeys(values, 0)
    worse = dict.fromkeys(values, 0)
    for (one, other), (difference, _), test in zip(pairs, tested, adjusted, strict=True):
        if test.adjusted is not None and test.adjusted < ALPHA:
            winner, loser = (one, other) if (difference > 0) == higher else (other, one)
            worse[winner] += 1
            better[loser] += 1
    return {label: Rank(1 + better[label], len(values) - worse[label]) for label in values}


def not_worse_than_best(ranks: Mapping[str, Rank]) -> Sequence[str]:
    """The methods that no other one is significantly better than."""
    return [label for label, rank in ranks.items() if rank.low == 1]


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float | None]:
    """The mean difference over common seeds, and the p-value of the paired t-test; None where it is not defined."""
    import numpy as np
    from scipy import stats

    seeds = [seed for seed in one if seed in other]
    if len(seeds) < 2:
        return 0.0, None
    differences = np.round([one[seed] - other[seed] for seed in seeds], 12)
    if np.ptp(differences) == 0:
        return float(differences[0]), None
    return float(differences.mean()), float(stats.ttest_1samp(differences, 0.0).pvalue)
