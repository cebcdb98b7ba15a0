"""Points of a search: at random by scipy's quasi-Monte Carlo, or proposed by Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignzoo.errors import UsageError
from alignzoo.sweeps.search_ranges import Range, Scale

Point = dict[str, Any]
STUDY_FILE = "optuna.journal"


class Sampler(Protocol):
    """Proposes points. What it proposes depends on its seed and on what it was told, not on how often it was
    restarted."""

    def ask(self, known: int, count: int) -> list[Point]:
        """``count`` points after the first ``known``."""
        ...

    def tell(self, number: int, score: float | None) -> None:
        """The score of a point, more is better; None if it failed. A second time it is ignored."""
        ...


@dataclass(frozen=True)
class RandomSampler:
    """Points of a scrambled Halton sequence, which fills the ranges more evenly than independent draws; more points
    continue the sequence.

    Attributes:
        first: the first point, before those of the sequence; None to begin with these.
    """

    ranges: Mapping[str, Range]
    seed: int
    first: Point | None

    def ask(self, known: int, count: int) -> list[Point]:
        from scipy.stats import qmc

        before = [self.first] if self.first is not None else []
        drawn = qmc.Halton(len(self.ranges), scramble=True, rng=self.seed).random(max(known + count - len(before), 1))
        points = [{w: _value(r, u) for (w, r), u in zip(self.ranges.items(), row, strict=True)} for row in drawn]
        return [dict(point) for point in [*before, *points][known : known + count]]

    def tell(self, number: int, score: float | None) -> None:
        pass


def _value(one: Range, u: float) -> Any:
    """The quantile ``u`` of the distribution over a range."""
    from scipy import stats

    if not isinstance(one, Scale):
        return one.values[int(stats.randint(0, len(one.values)).ppf(max(u, 1e-12)))]
    if one.integer:
        return int(stats.randint(int(one.low), int(one.high) + 1).ppf(max(u, 1e-12)))
    distribution = stats.loguniform(one.low, one.high) if one.log else stats.uniform(one.low, one.high - one.low)
    return float(f"{distribution.ppf(u):.6g}")


class OptunaSampler:
    """Optuna's tree-structured Parzen estimator; the study is a journal in the search's folder."""

    def __init__(self, ranges: Mapping[str, Range], seed: int, first: Point | None, folder: Path, known: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UsageError(
                "--search optuna needs Optuna, which is not installed", hint="pip install 'alignzoo[search]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / STUDY_FILE))
        self._optuna, self._seed = optuna, seed
        self._distributions = {word: _distribution(one) for word, one in ranges.items()}
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend), study_name="search", direction="maximize",
            load_if_exists=True,
        )  # fmt: skip
        if first is not None and not self._study.trials:
            self._study.enqueue_trial(first)
        self._numbers = [t.number for t in self._study.trials if t.user_attrs.get("place") is not None][:known]
        for trial in self._study.trials:  # asked for by a search that was killed before it wrote them down
            if trial.state == optuna.trial.TrialState.RUNNING and trial.number not in self._numbers:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def ask(self, known: int, count: int) -> list[Point]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            # Parallel trials that have no score yet count as bad ones, so that those of a batch differ.
            self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + known, constant_liar=True)
        points = []
        for place in range(known, known + count):
            trial = self._study.ask(self._distributions)
            trial.set_user_attr("place", place)
            self._numbers.append(trial.number)
            points.append(dict(trial.params))
        return points

    def tell(self, number: int, score: float | None) -> None:
        state = None if score is not None else self._optuna.trial.TrialState.FAIL
        self._study.tell(self._numbers[number], score, state=state, skip_if_finished=True)


def _distribution(one: Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(one, Scale):
        return CategoricalDistribution(one.values)
    if one.integer:
        return IntDistribution(int(one.low), int(one.high))
    return FloatDistribution(one.low, one.high, log=one.log)


def inside(point: Mapping[str, Any], ranges: Mapping[str, Range]) -> bool:
    """Whether every value lies in its range."""
    return all(
        one.low <= point[word] <= one.high if isinstance(one, Scale) else point[word] in one.values
        for word, one in ranges.items()
    )


def sampler_of(name: str, ranges: Mapping[str, Range], *, seed: int, first: Point, folder: Path, known: int) -> Sampler:
    """The sampler called ``random`` or ``optuna``, which begins with ``first`` if that lies in the ranges.

    Raises:
        UsageError: Optuna is not installed.
    """
    begin = first if inside(first, ranges) else None
    if name == "optuna":
        return OptunaSampler(ranges, seed, begin, folder, known)
    return RandomSampler(ranges, seed, begin)


def unlike(points: Sequence[Point]) -> list[Point]:
    """The points without repetitions."""
    return [point for at, point in enumerate(points) if point not in points[:at]]
