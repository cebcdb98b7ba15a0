"""What a comparison finds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alignzoo.comparison.figures import FigureFacts


@dataclass(frozen=True)
class OverSeeds:
    """A figure over seeds.

    Attributes:
        mean: over the seeds.
        low, high: the 95 % interval of the mean from Student's t; None for one seed.
        values: by seed.
    """

    mean: float
    low: float | None
    high: float | None
    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None for one seed."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Test:
    """A two-sided test of no difference.

    Attributes:
        p: None where it is not defined.
        adjusted: Holm's, over all differences of one figure to one baseline.
    """

    p: float | None
    adjusted: float | None = None


@dataclass(frozen=True)
class Difference:
    """A group minus the baseline, seed by seed.

    Attributes:
        over_seeds: the differences, over the seeds that both have.
        t, wilcoxon, permutation: paired tests; the t-test has no p-value if all differences are one and the same
            number other than 0, and none has one for a single seed.
        effect: Cohen's d of paired differences, their mean over their standard deviation; None where that is 0.
        detect: the difference to be seen, the observed one unless another was asked for.
        seeds_needed: seeds with which a paired t-test sees ``detect`` with a power of 80 % at p < .05, given the
            standard deviation of these differences, at most ``MOST_SEEDS``; None where it is not defined.
        detectable: the smallest difference that it sees so with the seeds at hand; None where it is not defined.
    """

    over_seeds: OverSeeds
    t: Test
    wilcoxon: Test
    permutation: Test
    effect: float | None
    detect: float
    seeds_needed: int | None
    detectable: float | None

    @property
    def zero(self) -> bool:
        """Whether there is exactly none, on any seed."""
        return not any(self.over_seeds.values.values())


MOST_SEEDS = 10_000


@dataclass(frozen=True)
class FigureRow:
    """A group's figure.

    Attributes:
        group: its label.
        figure: None if none of its runs has the figure.
        difference: to the baseline; None for the baseline itself, without one, and without a common seed.
    """

    group: str
    figure: OverSeeds | None
    difference: Difference | None = None


@dataclass(frozen=True)
class FigureTable:
    """A figure of all groups of a block.

    Attributes:
        block: what its groups share that other blocks do not, such as ``label-noise=0.2``; empty for one block.
        baseline: the label of the group to which differences are taken; None without one.
    """

    facts: FigureFacts
    block: str
    baseline: str | None
    rows: tuple[FigureRow, ...]


@dataclass(frozen=True)
class CostRow:
    """What a group's runs cost; None where runs do not record it.

    Attributes:
        seconds: of all training steps.
        wall: seconds of the whole process: loading, training, evaluation.
        tokens_per_second: in training steps.
        peak_memory: bytes.
        passes: forward-backward passes per step, on average.
    """

    group: str
    block: str
    seconds: OverSeeds | None
    wall: OverSeeds | None
    tokens_per_second: OverSeeds | None
    peak_memory: OverSeeds | None
    passes: float | None


@dataclass(frozen=True)
class FrontRow:
    """A group on the axes of safety, over-refusal and capability.

    Attributes:
        values: by axis, the mean of its figures, each turned so that 1 is best.
        dominated_by: groups that are at least as good on every axis and better on one, in means.
    """

    group: str
    block: str
    values: Mapping[str, OverSeeds]
    dominated_by: tuple[str, ...] = ()

    @property
    def on_front(self) -> bool:
        """Whether no other group dominates it."""
        return not self.dominated_by


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, compared.

    Attributes:
        groups: labels by block.
        seeds: of each group, by block and label.
        front: empty where runs have figures on fewer than two of its axes.
        figures_left_out: names that were not asked for.
        warnings: what a reader must know, in sentences.
    """

    groups: Mapping[str, tuple[str, ...]]
    seeds: Mapping[str, Mapping[str, tuple[int, ...]]]
    tables: tuple[FigureTable, ...]
    cost: tuple[CostRow, ...]
    front: tuple[FrontRow, ...]
    figures_left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        found = asdict(self)
        for row, written in zip(self.front, found["front"], strict=True):
            written["on_front"] = row.on_front
        return found
