"""The Pareto front of safety, over-refusal and capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from alignzoo.comparison.figures import AXES, FigureFacts
from alignzoo.comparison.results import FrontRow, OverSeeds
from alignzoo.comparison.statistics import DECIMALS, over_seeds

Values = Mapping[str, Mapping[int, float]]
"""A group's figures by name and seed."""


def front(block: str, groups: Mapping[str, Values], facts: Sequence[FigureFacts]) -> list[FrontRow]:
    """The groups of a block on the axes; empty if they share figures on fewer than two.

    An axis is the mean of its figures that all groups have and that are rates, each turned so that 1 is best.

    Args:
        groups: by label.
        facts: of the figures.
    """
    by_axis = {
        axis: [one for one in facts if one.axis == axis and one.better and _is_rate([*groups.values()], one.name)]
        for axis in AXES
    }
    axes = {axis: some for axis, some in by_axis.items() if some}
    if len(axes) < 2:
        return []
    rows = []
    for label, figures in groups.items():
        values: dict[str, OverSeeds] = {}
        for axis, some in axes.items():
            seeds = set.intersection(*(set(figures[one.name]) for one in some))
            if not seeds:
                break
            values[axis] = over_seeds(
                {seed: sum(_turned(figures[one.name][seed], one) for one in some) / len(some) for seed in sorted(seeds)}
            )
        else:
            rows.append(FrontRow(label, block, values))
    return [replace(row, dominated_by=tuple(one.group for one in rows if _dominates(one, row))) for row in rows]


def _is_rate(groups: Sequence[Values], name: str) -> bool:
    """Whether all groups have the figure, within 0 and 1."""
    return all(figures.get(name) and all(0 <= value <= 1 for value in figures[name].values()) for figures in groups)


def _turned(value: float, facts: FigureFacts) -> float:
    return value if facts.better == "higher" else 1 - value


def _dominates(one: FrontRow, other: FrontRow) -> bool:
    gains = [round(one.values[axis].mean - other.values[axis].mean, DECIMALS) for axis in one.values]
    return min(gains) >= 0 and max(gains) > 0
