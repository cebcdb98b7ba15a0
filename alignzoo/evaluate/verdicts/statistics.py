"""Rates, agreement and means with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the figure; NaN over nothing.
        low, high: its 95 % interval.
        n: how many observations it is over.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return shown(self.value, self.low, self.high) if self.n else "-"


def shown(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A figure with its interval, as tables have it."""
    sign = "+" if signed else ""
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def percentiles(draws: Any) -> tuple[float, float]:
    """The 95 % interval of bootstrapped values."""
    import numpy as np

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def rate(count: int, n: int) -> Estimate:
    """The share ``count / n`` with its Wilson interval."""
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / n, float(interval.low), float(interval.high), n)


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval."""
    import numpy as np

    found = np.asarray(values, dtype=float)
    if not len(found):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(seed).integers(0, len(found), (RESAMPLES, len(found)))
    return Estimate(float(found.mean()), *percentiles(found[draws].mean(axis=1)), len(found))


def kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Cohen's κ of two raters' labels of the same items (Cohen, 1960); 1 if both always give one and the same label,
    NaN over nothing.

    Raises:
        ValueError: the raters have labelled different numbers of items.
    """
    pairs = list(zip(one, other, strict=True))
    if not pairs:
        return float("nan")
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    labels = {label for pair in pairs for label in pair}
    expected = sum(sum(a == label for a, _ in pairs) * sum(b == label for _, b in pairs) for label in labels) / n**2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def kappa_estimate(one: Sequence[Hashable], other: Sequence[Hashable], *, seed: int = 0) -> Estimate:
    """Cohen's κ with its percentile bootstrap interval over items."""
    import numpy as np

    value = kappa(one, other)
    n = len(one)
    if n == 0:
        return Estimate(value, value, value, 0)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    values = [kappa([one[i] for i in draw], [other[i] for i in draw]) for draw in draws]
    return Estimate(value, *percentiles(values), n)
