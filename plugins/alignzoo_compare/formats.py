"""A comparison on a terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Literal

from alignzoo.cli.console import GAP, PIPE_WIDTH, plain_table, print_lines
from alignzoo.comparison.results import Comparison, Difference, OverSeeds
from alignzoo_compare.sheets import (
    Sheet,
    by_axis,
    cost_sheet,
    figure_sheet,
    figures_by_group,
    front_sheet,
    is_tested,
    overview,
    sheets,
    without_difference,
)

LEGEND = (
    "±: half of the 95 % interval of the mean (Student's t over seeds). Differences are paired by seed, with the "
    "p-values of the paired t-test, Wilcoxon's signed-rank test and the permutation test; Holm: of the t-test, "
    "corrected over the table (* below .05). d: mean of the differences over their standard deviation. "
    "needs: seeds with which a paired t-test at p < .05 has a power of 80 %."
)


def printed(comparison: Comparison, layout: Literal["markdown", "latex", "csv"] | None) -> None:
    """Print it on stdout; without a layout for people, as wide as the terminal or 100 characters."""
    if layout == "csv":
        print_lines(as_csv(comparison).rstrip("\n"))
    else:
        lines = {"markdown": as_markdown, "latex": as_latex, None: as_text}[layout](comparison)
        print_lines("\n".join(lines))


def as_text(comparison: Comparison) -> Iterator[str]:
    """Lines for a terminal: what holds for all figures first, then each figure with its tests."""
    width = shutil.get_terminal_size((PIPE_WIDTH, 0)).columns if sys.stdout.isatty() else PIPE_WIDTH
    together = all(len(labels) == 1 for labels in comparison.groups.values())
    if together:
        yield from _means(comparison, [*comparison.groups], width)
    for block, labels in comparison.groups.items():
        if together:
            break
        if block:
            yield from (f"=== {block} ===", "")
        yield from _means(comparison, [block], width)
        tables = by_axis([table for table in comparison.tables if table.block == block])
        front = front_sheet(comparison, block) if len(labels) > 1 else None
        for sheet in (
            *([front] if front is not None else []),
            *(figure_sheet(one) for one in tables if is_tested(one)),
        ):
            yield from _text(sheet, width)
        same = without_difference(tables)
        if same:
            everywhere = f"no difference on any seed: {'; '.join(same)}"
            yield from (*textwrap.wrap(everywhere, width, subsequent_indent="  "), "")
    yield from _text(cost_sheet(comparison.cost), width)
    for sentence in _notes(comparison):
        yield from textwrap.wrap(sentence, width, subsequent_indent="  ")


def _means(comparison: Comparison, blocks: list[str], width: int) -> Iterator[str]:
    """The means of all figures: groups in columns if these fit the width, else in rows."""
    sheet = figures_by_group(comparison, blocks)
    lines = plain_table(sheet.columns, sheet.rows, figures=True)
    if max(map(len, lines)) <= width:
        yield from (*textwrap.wrap(sheet.title, width), *lines, "")
        return
    for block in blocks:
        if len(blocks) > 1:
            yield from (f"=== {block} ===", "")
        yield from _overview(overview(comparison, block), width)


def as_markdown(comparison: Comparison) -> Iterator[str]:
    """Tables of GitHub's Markdown."""
    for sheet in sheets(comparison):
        yield from (f"**{_markdown(sheet.full_title)}**", "")
        yield f"| {' | '.join(map(_markdown, sheet.columns))} |"
        yield f"| --- |{' ---: |' * (len(sheet.columns) - 1)}"
        yield from (f"| {' | '.join(map(_markdown, row))} |" for row in sheet.rows)
        yield ""
    yield from (f"- {_markdown(sentence)}" for sentence in _notes(comparison))


def as_latex(comparison: Comparison) -> Iterator[str]:
    """Tables for ``\\usepackage{booktabs}``."""
    yield r"% \usepackage{booktabs}"
    yield from (f"% {_latex_comment(sentence)}" for sentence in _notes(comparison))
    for sheet in sheets(comparison):
        yield from ("", r"\begin{table}", r"\centering", rf"\caption{{{_latex(sheet.full_title)}}}")
        yield rf"\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}"
        yield from (r"\toprule", rf"{' & '.join(map(_latex, sheet.columns))} \\", r"\midrule")
        yield from (rf"{' & '.join(map(_latex, row))} \\" for row in sheet.rows)
        yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}")


def _notes(comparison: Comparison) -> list[str]:
    return [*comparison.warnings, *([LEGEND] if any(map(is_tested, comparison.tables)) else [])]


def as_csv(comparison: Comparison) -> str:
    """One line for each group and figure, with every digit; costs are figures named ``cost/…``."""
    lines = list(_lines(comparison))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for table in comparison.tables:
        for row in table.rows:
            of_figure = {"figure": table.facts.name, "better": table.facts.better, "block": table.block}
            against = None if row.difference is None else table.baseline
            yield {**of_figure, "group": row.group, **_over(row.figure), **_paired(row.difference, against)}
    for cost in comparison.cost:
        for name in ("seconds", "wall", "tokens_per_second", "peak_memory"):
            better = "higher" if name == "tokens_per_second" else "lower"
            of_figure = {"figure": f"cost/{name}", "better": better, "block": cost.block}
            yield {**of_figure, "group": cost.group, **_over(getattr(cost, name)), **_paired(None, None)}


def _over(figure: OverSeeds | None) -> dict[str, Any]:
    if figure is None:
        return dict.fromkeys(("seeds", "mean", "low", "high"))
    seeds = " ".join(map(str, figure.values))
    return {"seeds": seeds, "mean": figure.mean, "low": figure.low, "high": figure.high}


def _paired(found: Difference | None, baseline: str | None) -> Mapping[str, Any]:
    between = None if found is None else found.over_seeds
    tests = {
        f"{kind}_{test}": None if found is None else getattr(getattr(found, test), field)
        for kind, field in (("p", "p"), ("holm", "adjusted"))
        for test in ("t", "wilcoxon", "permutation")
    }
    return {
        "baseline": baseline,
        **{f"difference_{name}": value for name, value in _over(between).items()},
        **tests,
        **{name: getattr(found, name, None) for name in ("effect", "detect", "seeds_needed", "detectable")},
    }


def _text(sheet: Sheet, width: int) -> Iterator[str]:
    yield from textwrap.wrap(sheet.title, width, break_on_hyphens=False)
    yield from plain_table(sheet.columns, sheet.rows, figures=True)
    yield ""


def _overview(sheet: Sheet, width: int) -> Iterator[str]:
    """The overview in as many tables as it takes to fit the width, with headings of several lines."""
    first = max(len(row[0]) for row in sheet.rows)
    words = [word for column in sheet.columns[1:] for word in column.split()]
    cell = max(map(len, (*words, *(text for row in sheet.rows for text in row[1:]))), default=1)
    count = max(1, (width - first) // (cell + len(GAP)))
    yield sheet.title
    for start in range(1, len(sheet.columns), count):
        some = range(start, min(start + count, len(sheet.columns)))
        headings = [textwrap.wrap(sheet.columns[i], cell) for i in some]
        heads = [("", *line) for line in zip_longest(*headings, fillvalue="")]
        rows = [(row[0], *(row[i] for i in some)) for row in sheet.rows]
        yield from plain_table([""] * (len(some) + 1), [*heads, *rows], figures=True)
        yield ""


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", text)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "*": "$^{*}$",
    "…": r"\dots{}",
}


def _latex(text: str) -> str:
    signed = re.sub(r"^-(?=\d)", "−", text)
    return "".join(_LATEX.get(character, character) for character in signed)


def _latex_comment(text: str) -> str:
    return " ".join(text.split())
