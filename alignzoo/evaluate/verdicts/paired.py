"""Two models on the same prompts: the difference of their rates, its interval, and a test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo.evaluate.verdicts.statistics import Estimate, rate


@dataclass(frozen=True)
class Paired:
    """How an outcome differs between two models, prompt by prompt.

    Attributes:
        difference: the first model's rate minus the second's, with its 95 % interval.
        only_first, only_second: prompts with the outcome for one of the two only.
        p_value: McNemar's exact test of equal rates.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two models' outcomes on the same prompts, in the same order.

    The interval is Newcombe's for paired proportions (Statistics in Medicine 17:2635, 1998, method 10); the test is
    McNemar's, exact: a two-sided binomial test of the discordant pairs.

    Raises:
        ValueError: different numbers of prompts, or none.
    """
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    if not pairs:
        raise ValueError("no prompts to compare on")
    both, only_first = pairs.count((True, True)), pairs.count((True, False))
    only_second = pairs.count((False, True))
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return Paired(_newcombe(both, only_first, only_second, len(pairs)), only_first, only_second, p_value)


def _newcombe(both: int, only_first: int, only_second: int, n: int) -> Estimate:
    """The difference of two paired proportions with the score interval of Newcombe's method 10."""
    neither = n - both - only_first - only_second
    one, other = rate(both + only_first, n), rate(both + only_second, n)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    covariance = both * neither - only_first * only_second
    corrected = max(covariance - n / 2, 0.0) if covariance > 0 else covariance
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a**2 - 2 * phi * a * b + b**2, 0.0))

    value = one.value - other.value
    low = value - reach(one.value - one.low, other.high - other.value)
    high = value + reach(one.high - one.value, other.value - other.low)
    return Estimate(value, max(low, -1.0), min(high, 1.0), n)
