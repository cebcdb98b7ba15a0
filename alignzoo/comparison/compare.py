"""Groups of runs, compared figure by figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from alignzoo.base.suggest import suggest
from alignzoo.comparison.caveats import caveats
from alignzoo.comparison.comparable import differences
from alignzoo.comparison.cost import cost_rows
from alignzoo.comparison.figures import FigureFacts, facts, figures_of
from alignzoo.comparison.front import front
from alignzoo.comparison.groups import Group
from alignzoo.comparison.results import Comparison, Difference, FigureRow, FigureTable, FrontRow
from alignzoo.comparison.statistics import difference, holm, over_seeds
from alignzoo.errors import UsageError

Figures = dict[str, dict[int, float]]
"""A group's figures by name and seed."""


def compare(
    groups: Sequence[Group],
    *,
    baseline: str | None = None,
    figures: Sequence[str] | None = None,
    detect: float | None = None,
    anyway: bool = False,
) -> Comparison:
    """Means over seeds with intervals, paired differences to a baseline with tests, cost, and the Pareto front.

    Args:
        baseline: a label; None for the first group of each block.
        figures: patterns of names, as ``sandbox/asr/*``; None for those of which it is known which way is better.
        detect: the difference to be seen, for the number of seeds that it needs; None for each observed one.
        anyway: whether groups that must not be compared, are; what differs is then among the warnings.

    Raises:
        UsageError: there is nothing to compare, a name matches nothing, or groups must not be compared.
        DamagedError: a file of a run is not what was written.
    """
    if not groups:
        raise UsageError("there are no groups to compare", hint="name runs or a sweep")
    if baseline is not None and baseline not in {group.label for group in groups}:
        labels = list(dict.fromkeys(group.label for group in groups))
        hint = suggest(baseline, labels) or f"the groups are: {', '.join(labels)}"
        raise UsageError(f"{baseline!r} is none of the groups", hint=hint)
    apart = differences(groups)
    if apart and not anyway:
        raise UsageError(
            "these runs cannot be compared as they are:\n" + "\n".join(f"  {one}" for one in apart),
            hint="--by WORD compares within each value of a word; --anyway compares regardless",
        )
    blocks: dict[str, list[tuple[Group, Figures]]] = {}
    for group in groups:
        blocks.setdefault(group.block, []).append((group, _figures(group)))
    every = list(dict.fromkeys(name for some in blocks.values() for _, found in some for name in found))
    chosen = _chosen(every, figures)
    tables, rows = list[FigureTable](), list[FrontRow]()
    for block, some in blocks.items():
        against = baseline or some[0][0].label
        by_label = {group.label: found for group, found in some}
        here = [name for name in chosen if any(name in found for _, found in some)]
        tables += [_table(facts(name), block, by_label, against, detect) for name in here]
        rows += front(block, by_label, [facts(name) for name in chosen])
    return Comparison(
        groups={block: tuple(group.label for group, _ in some) for block, some in blocks.items()},
        seeds={block: {group.label: tuple(group.runs) for group, _ in some} for block, some in blocks.items()},
        tables=tuple(sorted(tables, key=lambda table: chosen.index(table.facts.name))),
        cost=tuple(cost_rows(groups)),
        front=tuple(rows),
        figures_left_out=tuple(name for name in every if name not in chosen),
        warnings=(*(f"compared anyway: {one}" for one in apart), *caveats(groups, baseline)),
    )


def _figures(group: Group) -> Figures:
    found: Figures = {}
    for seed, run in group.runs.items():
        for name, value in figures_of(run).items():
            found.setdefault(name, {})[seed] = value
    return found


def _chosen(names: Sequence[str], patterns: Sequence[str] | None) -> list[str]:
    """The figures to compare.

    Raises:
        UsageError: a pattern matches none of them.
    """
    if patterns is None:
        return [name for name in names if facts(name).better] or list(names)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise UsageError(
                f"no figure matches {pattern!r}", hint=suggest(pattern, names) or f"there are: {', '.join(names)}"
            )
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def _table(
    figure: FigureFacts, block: str, groups: Mapping[str, Figures], against: str, detect: float | None
) -> FigureTable:
    base = groups.get(against, {}).get(figure.name, {})
    found = {
        label: difference(figures.get(figure.name, {}), base, detect=detect) if label != against else None
        for label, figures in groups.items()
    }
    adjusted = _adjusted({label: one for label, one in found.items() if one is not None})
    rows = tuple(
        FigureRow(
            label,
            over_seeds(figures[figure.name]) if figures.get(figure.name) else None,
            adjusted.get(label),
        )
        for label, figures in groups.items()
    )
    return FigureTable(figure, block, against if against in groups else None, rows)


def _adjusted(found: Mapping[str, Difference]) -> dict[str, Difference]:
    """The differences with Holm's p-values, each test a family."""
    some = list(found.values())
    tests = [holm([getattr(one, test) for one in some]) for test in ("t", "wilcoxon", "permutation")]
    return {
        label: replace(one, t=t, wilcoxon=wilcoxon, permutation=permutation)
        for (label, one), t, wilcoxon, permutation in zip(found.items(), *tests, strict=True)
    }
