"""Groups of runs side by side: figures with intervals, differences to the baseline, the Pareto front, cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from alignzoo.comparison.compare import compare
from alignzoo.comparison.figures import FigureFacts
from alignzoo.comparison.groups import Group
from alignzoo.comparison.results import Comparison, Difference, FigureRow, FigureTable, FrontRow, OverSeeds
from alignzoo.errors import AlignzooError
from alignzoo_report.blocks import Chart, Charts, Details, Heading, Note, Section, Table, Text
from alignzoo_report.charts import Interval, intervals, scatter, shown

SIGNIFICANT = 0.05
HOW = "Dots are means over seeds, bars their 95 % intervals (Student's t), faint dots single seeds."
HOW_TESTED = (
    "Differences are taken seed by seed to the baseline. p-values are adjusted by Holm's method over all differences "
    "of a table to its baseline; d is Cohen's d of paired differences; “seeds needed” is for a power of 80 % at "
    "p < .05. Rows whose adjusted t-test gives p < .05 are highlighted."
)


def compared(groups: Sequence[Group]) -> tuple[Comparison | None, list[str]]:
    """The comparison, and what a reader must be warned of; None where there is nothing to compare."""
    if not groups:
        return None, []
    try:
        found = compare(groups, anyway=True)
    except AlignzooError as error:
        return None, [error.message]
    return found, list(found.warnings)


def comparison_section(comparison: Comparison, warnings: Sequence[str]) -> Section:
    """An overview, then each figure as a chart and a table, by block."""
    blocks: list[Any] = [Note(f"{text}.") for text in warnings]
    tested = any(row.difference for table in comparison.tables for row in table.rows)
    blocks.append(Text(f"{HOW} {HOW_TESTED}" if tested else HOW))
    together = all(len(labels) == 1 for labels in comparison.groups.values())
    for block in [""] if together else comparison.groups:
        tables = _side_by_side(comparison.tables) if together else comparison.tables
        tables = [table for table in tables if table.block == block]
        if block:
            blocks.append(Heading(block))
        if tables:
            blocks.append(_overview(tables, block))
        blocks.append(Charts([_chart(table) for table in tables]))
        if any(row.difference for table in tables for row in table.rows):
            tests = [_tests(table) for table in tables]
            against = tables[0].baseline
            blocks.append(Details(f"Differences to {against} with tests{_of(block)}", tests))
    return Section("comparison", "Comparison", blocks)


def _side_by_side(tables: Sequence[FigureTable]) -> Sequence[FigureTable]:
    """The tables of blocks of one group each as those of one block, whose groups are named by theirs."""
    rows: dict[FigureFacts, list[FigureRow]] = {}
    alike = len({row.group for table in tables for row in table.rows}) == 1
    for table in tables:
        for row in table.rows:
            block = table.block if alike else f"{row.group} ({table.block})"
            name = block if table.block else row.group
            rows.setdefault(table.facts, []).append(replace(row, group=name))
    return [FigureTable(facts, "", None, tuple(some)) for facts, some in rows.items()]


def _of(block: str) -> str:
    return f", {block}" if block else ""


def _overview(tables: Sequence[FigureTable], block: str) -> Table:
    """Figures in rows and groups in columns, or the other way round if there are more groups than figures."""
    groups = [row.group for row in tables[0].rows]
    names = [f"{table.facts.label}{_arrow(table)}" for table in tables]
    cells = [
        [plus_minus({row.group: row.figure for row in table.rows}.get(group)) for group in groups] for table in tables
    ]
    caption = f"Means ± half of the 95 % interval{_of(block)} (↓ lower is better, ↑ higher is better)"
    if len(groups) <= len(tables):
        rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
        return Table(caption, ["figure", *groups], rows, figures=range(1, len(groups) + 1))
    rows = [[group, *column] for group, column in zip(groups, zip(*cells, strict=True), strict=True)]
    return Table(caption, ["group", *names], rows, figures=range(1, len(names) + 1))


def _arrow(table: FigureTable) -> str:
    return {"lower": " ↓", "higher": " ↑"}.get(table.facts.better or "", "")


def plus_minus(figure: OverSeeds | None, digits: int = 3) -> str:
    """``0.123 ± 0.010``; the mean alone for one seed."""
    if figure is None:
        return "–"
    half = figure.half
    return f"{figure.mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")


def _chart(table: FigureTable) -> Chart:
    groups = [
        Interval(row.group, row.figure.mean, row.figure.low, row.figure.high, list(row.figure.values.values()))
        for row in table.rows
        if row.figure is not None
    ]
    name = f"{table.facts.name}-{table.block}"
    return intervals(name, table.facts.label, groups, better=table.facts.better)


def _tests(table: FigureTable) -> Table:
    rows, strong = list[list[str]](), set[int]()
    for row in table.rows:
        found = row.difference
        if found is None:
            continue
        if found.t.adjusted is not None and found.t.adjusted < SIGNIFICANT:
            strong.add(len(rows))
        rows.append([row.group, *_difference(found)])
    columns = ("group", "difference", "n", "t", "Wilcoxon", "permutation", "d", "seeds needed")
    caption = f"{table.facts.label}{_of(table.block)}: difference to {table.baseline}, adjusted p-values"
    return Table(caption, columns, rows, figures=range(1, len(columns)), strong=frozenset(strong))


def _difference(found: Difference) -> list[str]:
    over = found.over_seeds
    if found.zero:
        return ["exactly none", str(over.n), *["–"] * 5]
    interval = "" if over.low is None or over.high is None else f" [{over.low:+.3f}, {over.high:+.3f}]"
    tests = (found.t, found.wilcoxon, found.permutation)
    return [
        f"{over.mean:+.3f}{interval}",
        str(over.n),
        *("–" if test.adjusted is None else f"{test.adjusted:.3g}" for test in tests),
        "–" if found.effect is None else f"{found.effect:+.2f}",
        "–" if found.seeds_needed is None else f"{found.seeds_needed:,}",
    ]


def pareto_section(comparison: Comparison) -> Section | None:
    """Safety, over-refusal and capability together; None where the runs have fewer than two of them."""
    charts = list(_fronts(comparison.front))
    if not charts:
        return None
    text = (
        "Each axis is the mean of its figures, turned so that 1 is best. A group is on the front if no other group of "
        "its block is at least as good on every axis and better on one. Groups near the front may differ from it by "
        "chance."
    )
    return Section("pareto", "Trade-offs", [Text(text), Charts(charts)])


def _fronts(rows: Sequence[FrontRow]) -> Iterator[Chart]:
    names = {"safety": "safety", "over-refusal": "helpfulness on harmless requests", "capability": "capability"}
    for block in dict.fromkeys(row.block for row in rows):
        some = [row for row in rows if row.block == block]
        axes = [axis for axis in names if all(axis in row.values for row in some)]
        if len(axes) < 2:
            continue
        points = [
            {
                "group": row.group,
                **{names[axis]: float(row.values[axis].mean) for axis in axes},
                "on the front": "yes" if row.on_front else "no",
            }
            for row in some
        ]
        x, y, *size = (names[axis] for axis in axes)
        yield scatter(
            f"pareto-{block}",
            f"Pareto front{_of(block)}",
            points,
            x=x,
            y=y,
            size=size[0] if size else None,
            mark="on the front",
            note=f"Larger dots have more {size[0]}." if size else "",
        )


def cost_section(comparison: Comparison) -> Section:
    """What the runs of each group cost."""
    rows = []
    for row in comparison.cost:
        memory = None if row.peak_memory is None else row.peak_memory.mean / 2**20
        rows.append(
            [
                f"{row.group}{f' ({row.block})' if row.block else ''}",
                _mean(row.seconds, ".1f"),
                _mean(row.wall, ".1f"),
                _mean(row.tokens_per_second, ",.0f"),
                "–" if memory is None else f"{memory:,.0f}",
                shown(row.passes),
            ]
        )
    columns = ("group", "training s", "whole run s", "tokens/s", "peak memory MiB", "passes per step")
    table = Table("Cost per run, means over seeds", columns, rows, figures=range(1, len(columns)))
    return Section("cost", "Cost", [table])


def _mean(figure: OverSeeds | None, shape: str) -> str:
    return "–" if figure is None else f"{figure.mean:{shape}}"
