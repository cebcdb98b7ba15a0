"""Win rates of model A over model B from a preference judge's verdicts in both orders, raw and length-controlled.

Each pair of responses is judged twice, A shown first and B shown first. In each order A's score is 1 for a win, ½ for a
tie and 0 for a loss; a pair's score is the mean over both orders, and the win rate their mean over prompts. An unparsed
verdict counts as a tie, so that the rate of B over A is one minus that of A over B; ``bounds`` take all of them as
losses and as wins.

The length-controlled win rate follows AlpacaEval 2 (Dubois et al., 2024, arXiv 2404.04475):

    P(A preferred) = σ(θ + φ · tanh(Δ / sd(Δ))),   Δ = length of A − length of B,   controlled rate = σ(θ)

fitted by logistic regression on the pairs' scores, with the penalty ½φ² on the slope alone. AlpacaEval's code
(tatsu-lab/alpaca_eval at cd543a1, ``glm_winrate.py``) has an ℓ1 penalty on all terms, with a strength from
cross-validation, adds annotations of two gamed baselines to the data, and has a term for the difficulty of an
instruction, from a leaderboard of models on its own prompts; none of these has a counterpart here. Lengths are in
characters, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignzoo.evaluate.verdicts.statistics import RESAMPLES, Estimate, mean, percentiles, rate

Winner = Literal["first", "second", "tie"] | None
PENALTY = 1.0
"""Of the squared slope φ², halved."""
_STEPS = 100
_LARGEST = 15.0  # log-odds at which an intercept that grows without bound is stopped
_VALUES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Compared:
    """The verdicts on one prompt's two responses.

    Attributes:
        a_first, b_first: the winner with A's and with B's response shown first; None if unparsed.
        length_a, length_b: of the responses, in characters.
    """

    a_first: Winner
    b_first: Winner
    length_a: int
    length_b: int
    category: str | None = None

    @property
    def unparsed(self) -> int:
        """In how many of the two orders the verdict could not be parsed."""
        return (self.a_first is None) + (self.b_first is None)

    @property
    def score(self) -> float:
        """A's score, averaged over both orders; an unparsed verdict counts as a tie."""
        points = {"first": 1.0, "second": 0.0}
        return (points.get(self.a_first or "", 0.5) + 1 - points.get(self.b_first or "", 0.5)) / 2

    @property
    def consistent(self) -> bool:
        """Whether both orders were parsed and name the same winner."""
        return (self.a_first, self.b_first) in (("first", "second"), ("second", "first"), ("tie", "tie"))


@dataclass(frozen=True)
class Controlled:
    """The win rate at equal lengths.

    Attributes:
        rate: σ(θ), with its percentile bootstrap interval over prompts.
        length_effect: φ; positive if the judge prefers longer responses. None where it is not identified.
        note: why it is not to be relied on; empty otherwise.
    """

    rate: Estimate
    length_effect: float | None
    note: str = ""


@dataclass(frozen=True)
class WinRate:
    """Model A against model B.

    Attributes:
        n: pairs, each judged in both orders.
        wins, ties, losses: pairs whose score is above, at and below ½.
        rate: the mean score, with its percentile bootstrap interval over prompts.
        bounds: the rate with all unparsed verdicts taken as losses, and as wins.
        controlled: the length-controlled rate.
        consistency: the share of pairs whose winner is the same in both orders.
        first_shown: the share of parsed verdicts for the response shown first, ties half: ½ without position bias.
            None without any parsed verdict.
        unparsed: of the 2·n verdicts.
        length_a, length_b: mean lengths, in characters.
    """

    n: int
    wins: int
    ties: int
    losses: int
    rate: Estimate
    bounds: tuple[float, float]
    controlled: Controlled
    consistency: Estimate
    first_shown: float | None
    unparsed: int
    length_a: float
    length_b: float


def win_rate(pairs: Sequence[Compared], *, seed: int = 0) -> WinRate:
    """The win rate of A over B.

    Args:
        seed: of the bootstrap.

    Raises:
        ValueError: there are no pairs.
    """
    n = len(pairs)
    if not n:
        raise ValueError("a win rate needs at least one pair")
    scores = [pair.score for pair in pairs]
    differences = [pair.length_a - pair.length_b for pair in pairs]
    raw, unparsed = mean(scores, seed=seed), sum(pair.unparsed for pair in pairs)
    slack = unparsed / (4 * n)
    return WinRate(
        n=n,
        wins=sum(score > 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        rate=raw,
        bounds=(raw.value - slack, raw.value + slack),
        controlled=length_controlled(scores, differences, seed=seed),
        consistency=rate(sum(pair.consistent for pair in pairs), n),
        first_shown=_first_shown(pairs),
        unparsed=unparsed,
        length_a=sum(pair.length_a for pair in pairs) / n,
        length_b=sum(pair.length_b for pair in pairs) / n,
    )


def by_category(pairs: Sequence[Compared], *, seed: int = 0) -> dict[str, WinRate]:
    """The win rate in each category, in order of appearance; pairs without a category are left out."""
    categories = dict.fromkeys(pair.category for pair in pairs if pair.category is not None)
    return {name: win_rate([pair for pair in pairs if pair.category == name], seed=seed) for name in categories}


def length_controlled(scores: Sequence[float], differences: Sequence[float], *, seed: int = 0) -> Controlled:
    """The win rate at equal lengths, from A's scores in [0, 1] and the differences in length, one per prompt.

    Raises:
        ValueError: of different numbers, or of none.
    """
    import numpy as np
    from scipy.special import expit

    y, delta = np.asarray(scores, dtype=float), np.asarray(differences, dtype=float)
    if len(y) != len(delta) or not len(y):
        raise ValueError(f"{len(y)} scores, {len(delta)} differences in length")
    n, spread = len(y), float(delta.std())
    x = np.tanh(delta / spread) if spread > 0 else np.zeros_like(delta)
    if y.min() == y.max() and y[0] in (0.0, 1.0):
        every = "won" if y[0] else "lost"
        value = float(y[0])
        note = f"A {every} every comparison: there is nothing to control for, and the interval has no width"
        return Controlled(Estimate(value, value, value, n), None, note)
    intercept, slope = fit(x[None], y[None], np.ones((1, n)))
    estimate = Estimate(float(expit(intercept[0])), *percentiles(expit(_resampled(x, y, seed))), n)
    if spread > 0:
        return Controlled(estimate, float(slope[0]), _extrapolation(delta))
    if delta[0] == 0:
        return Controlled(estimate, None)
    return Controlled(estimate, None, "all pairs differ in length by the same amount: this is the raw rate")


def _extrapolation(delta: Any) -> str:
    """A caution where no pair has the length difference that the rate is about."""
    if delta.min() <= 0 <= delta.max():
        return ""
    longer = "longer" if delta.min() > 0 else "shorter"
    return f"A's response is {longer} in every pair: the rate at equal lengths is an extrapolation"


def _resampled(x: Any, y: Any, seed: int) -> Any:
    """The intercepts fitted to bootstrap samples of the prompts."""
    import numpy as np

    n, rng = len(y), np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // n)
    found = []
    for start in range(0, RESAMPLES, at_once):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, RESAMPLES - start)).astype(float)
        found.append(fit(x[None], y[None], counts, tolerance=1e-4)[0])
    return np.concatenate(found)


def fit(x: Any, y: Any, weights: Any, *, tolerance: float = 1e-9) -> tuple[Any, Any]:
    """Logistic regressions on one feature, with the penalty on the slope, one per row of ``weights`` (by Newton).

    Args:
        x, y: features and outcomes in [0, 1], ``(1, n)``.
        weights: how often each pair counts, ``(rows, n)``.
        tolerance: of both, in log-odds.

    Returns:
        Intercepts and slopes, ``(rows,)``. An intercept that grows without bound, where all outcomes are equal, stops
        at ±15.
    """
    import numpy as np
    from scipy.special import expit

    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_STEPS):
        p = expit(a[:, None] + b[:, None] * x)
        w, residual = weights * p * (1 - p), weights * (y - p)
        ga, gb = residual.sum(1), (residual * x).sum(1) - PENALTY * b
        haa, hab, hbb = w.sum(1) + 1e-12, (w * x).sum(1), (w * x * x).sum(1) + PENALTY
        determinant = haa * hbb - hab * hab
        before = a, b
        a = np.clip(a + np.clip((hbb * ga - hab * gb) / determinant, -2, 2), -_LARGEST, _LARGEST)
        b = b + np.clip((haa * gb - hab * ga) / determinant, -2, 2)
        if max(np.abs(a - before[0]).max(), np.abs(b - before[1]).max()) < tolerance:
            break
    return a, b


def _first_shown(pairs: Sequence[Compared]) -> float | None:
    points = {"first": 1.0, "tie": 0.5, "second": 0.0}
    found = [points[winner] for pair in pairs for winner in (pair.a_first, pair.b_first) if winner is not None]
    return sum(found) / len(found) if found else None
