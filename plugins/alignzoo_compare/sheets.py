"""A comparison as tables of text, for a terminal and for documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignzoo.comparison.figures import AXES
from alignzoo.comparison.results import (
    MOST_SEEDS,
    Comparison,
    CostRow,
    Difference,
    FigureTable,
    OverSeeds,
    Test,
)

NOTHING = "-"
MEANS = "means over seeds"
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: what it shows, in one line.
        block: whose groups it shows.
        columns: headings; the first column is text, the others are figures.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    block: str = ""

    @property
    def full_title(self) -> str:
        """The title with the block."""
        return f"{self.block}: {self.title}" if self.block else self.title


def overview(comparison: Comparison, block: str) -> Sheet:
    """All figures of a block's groups: means with half the width of their intervals."""
    tables = by_axis([table for table in comparison.tables if table.block == block])
    rows = [
        (label, *(_mean(row.figure, 2) for table in tables for row in table.rows if row.group == label))
        for label in comparison.groups[block]
    ]
    return Sheet(MEANS, ("", *(table.facts.label for table in tables)), tuple(rows), block)


def figures_by_group(comparison: Comparison, blocks: Sequence[str]) -> Sheet:
    """The same with figures in rows and the groups of some blocks in columns."""
    columns = [(block, label) for block in blocks for label in comparison.groups[block]]
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for table in by_axis(comparison.tables):
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[table.facts.better]
        row = cells.setdefault(f"{table.facts.label}{arrow}", {})
        row |= {(table.block, one.group): _mean(one.figure, 3) for one in table.rows}
    rows = tuple(
        (name, *(of_group.get(column, NOTHING) for column in columns))
        for name, of_group in cells.items()
        if any(column in of_group for column in columns)
    )
    names = _names(columns)
    return Sheet(f"{MEANS}; ↑ higher is better, ↓ lower is better", ("", *names), rows)


def by_axis(tables: Sequence[FigureTable]) -> list[FigureTable]:
    """Held-out figures first, then those of each axis of the Pareto front together."""
    return sorted(tables, key=lambda table: AXES.index(table.facts.axis) if table.facts.axis in AXES else -1)


def without_difference(tables: Sequence[FigureTable]) -> list[str]:
    """The figures that are the same for all groups on every seed."""
    return [table.facts.label for table in tables if (found := _differences(table)) and all(one.zero for one in found)]


def is_tested(table: FigureTable) -> bool:
    """Whether some difference, over two seeds or more, is not zero everywhere."""
    return any(one.over_seeds.n > 1 and not one.zero for one in _differences(table))


def _differences(table: FigureTable) -> list[Difference]:
    return [row.difference for row in table.rows if row.difference is not None]


def figure_sheet(table: FigureTable) -> Sheet:
    """A figure of all groups, with differences to the baseline and their tests; empty columns are left out."""
    facts = table.facts
    better = f"; {facts.better} is better" if facts.better else ""
    against = f"; differences to {table.baseline}" if table.baseline and len(table.rows) > 1 else ""
    found = [row.figure for row in table.rows if row.figure is not None]
    seeds = {figure.n for figure in found}
    columns = (*("", "mean", "seeds", "difference", "p t", "p Wilc.", "p perm.", "p Holm", "d", "needs"),)
    rows = []
    for row in table.rows:
        n = NOTHING if row.figure is None else str(row.figure.n)
        cells = _difference(row.difference) if row.difference is not None else (NOTHING,) * 7
        rows.append((row.group, _mean(row.figure, 3), n if len(seeds) > 1 else NOTHING, *cells))
    same = f"; {seeds.pop()} seeds" if len(seeds) == 1 and found[0].n > 1 else ""
    name = "" if facts.name == facts.label else f" ({facts.name}{better})"
    return _without_empty(Sheet(f"{facts.label}{name}{same}{against}", columns, tuple(rows), table.block))


def cost_sheet(rows: Sequence[CostRow]) -> Sheet:
    """What runs cost, as means over seeds."""
    names = _names([(row.block, row.group) for row in rows])
    columns = ("", "training s", "whole run s", "tokens/s", "peak MiB", "passes/step")
    cells = [
        (
            name,
            _mean(row.seconds, 1),
            _mean(row.wall, 1),
            _mean(row.tokens_per_second, 0),
            _mean(row.peak_memory, 0, _MEBIBYTE),
            NOTHING if row.passes is None else f"{row.passes:g}",
        )
        for name, row in zip(names, rows, strict=True)
    ]
    return _without_empty(Sheet("cost, means over seeds", columns, tuple(cells)))


def _names(columns: Sequence[tuple[str, str]]) -> list[str]:
    """What tells groups apart, given by block and label: one of the two if that is enough."""
    blocks, labels = {block for block, _ in columns}, {label for _, label in columns}
    if len(blocks) == 1:
        return [label for _, label in columns]
    return [block if len(labels) == 1 else f"{label} ({block})" for block, label in columns]


def front_sheet(comparison: Comparison, block: str) -> Sheet | None:
    """The Pareto front of a block; None if its runs have figures on fewer than two axes."""
    rows = [row for row in comparison.front if row.block == block]
    if not rows:
        return None
    axes = tuple(rows[0].values)
    cells = [
        (
            row.group,
            *(_mean(row.values[axis], 3) for axis in axes),
            "yes" if row.on_front else "",
        )
        for row in rows
    ]
    title = "Pareto front of means, 1 is best on every axis"
    names = ("1 − over-refusal" if axis == "over-refusal" else axis for axis in axes)
    return _without_empty(Sheet(title, ("", *names, "on the front"), tuple(cells), block))


def sheets(comparison: Comparison) -> list[Sheet]:
    """All tables but the overview."""
    fronts = [front_sheet(comparison, block) for block in comparison.groups]
    return [
        *map(figure_sheet, comparison.tables),
        cost_sheet(comparison.cost),
        *(one for one in fronts if one is not None),
    ]


def p_value(p: float | None) -> str:
    """As papers write it: ``.012``."""
    if p is None:
        return NOTHING
    return "<.001" if p < 0.0005 else "1" if p > 0.9995 else f"{p:.3f}"[1:]


def _difference(found: Difference) -> tuple[str, ...]:
    if found.zero:
        shown = "none"
    else:
        starred = found.t.adjusted is not None and found.t.adjusted < 0.05
        shown = f"{_mean(found.over_seeds, 3, signed=True)}{'*' if starred else ''}"
    tests: tuple[Test, ...] = (found.t, found.wilcoxon, found.permutation)
    needs = NOTHING if found.seeds_needed is None else f"{found.seeds_needed}"
    return (
        shown,
        *(p_value(test.p) for test in tests),
        p_value(found.t.adjusted),
        NOTHING if found.effect is None else f"{found.effect:+.2f}",
        f">{MOST_SEEDS - 1}" if found.seeds_needed == MOST_SEEDS else needs,
    )


def _mean(figure: OverSeeds | None, digits: int, unit: float = 1, *, signed: bool = False) -> str:
    if figure is None:
        return NOTHING
    mean = f"{figure.mean / unit:{'+' if signed else ''}.{digits}f}"
    return mean if figure.half is None else f"{mean} ±{figure.half / unit:.{digits}f}"


def _without_empty(sheet: Sheet) -> Sheet:
    """The sheet without columns that say nothing of any row."""
    some = [i for i in range(len(sheet.columns)) if i == 0 or any(row[i] not in ("", NOTHING) for row in sheet.rows)]
    rows = tuple(tuple(row[i] for i in some) for row in sheet.rows)
    return replace(sheet, columns=tuple(sheet.columns[i] for i in some), rows=rows)
