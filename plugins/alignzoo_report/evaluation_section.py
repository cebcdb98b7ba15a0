"""Figures before and after training, and what ``alignzoo eval`` found, by category too."""

from __future__ import annotations

from typing import Any

from alignzoo.comparison.figures import facts
from alignzoo.errors import AlignzooError
from alignzoo.records import RunRecord
from alignzoo_report.blocks import Chart, Heading, Note, Section, Table, Text
from alignzoo_report.charts import Interval, intervals, shown


def evaluation_section(run: RunRecord) -> Section:
    """The section of a run; says what to run where there is no evaluation."""
    blocks: list[Any] = []
    result = run.result
    if result is not None and result.after:
        blocks.append(_before_and_after(result.before, result.after))
    else:
        blocks.append(Text("The run has not finished, so there are no figures after training yet."))
    try:
        evaluation = run.evaluation
    except AlignzooError as error:
        return Section("evaluation", "Evaluation", [*blocks, Note(error.message)])
    if evaluation is None:
        blocks.append(Text(f"No suites or tasks were evaluated. To add them: alignzoo eval {run.name}"))
        return Section("evaluation", "Evaluation", blocks)
    from alignzoo.evaluate.show import notes, tables

    blocks.append(Heading("Suites and tasks"))
    blocks += [
        Table(one.title[:1].upper() + one.title[1:], one.columns, one.rows, figures=range(3, len(one.columns)))
        for one in tables(evaluation)
    ]
    blocks += list(_by_category(evaluation))
    blocks += [Text(_sentence(note)) for note in notes(evaluation)]
    return Section("evaluation", "Evaluation", blocks)


def _before_and_after(before: dict[str, float], after: dict[str, float]) -> Table:
    rows = []
    for name, value in after.items():
        known = facts(name)
        start = before.get(name)
        change = "–" if start is None else f"{value - start:+.4g}"
        rows.append((known.label, shown(start), shown(value), change, known.better or "–"))
    columns = ("figure", "before", "after", "change", "better")
    return Table("Figures before and after training", columns, rows, figures=(1, 2, 3))


def _by_category(evaluation: Any) -> list[Chart]:
    charts = []
    for i, figure in enumerate(evaluation.figures):
        if not figure.by_category:
            continue
        groups = [Interval(name, rate.value, rate.low, rate.high) for name, rate in figure.by_category.items()]
        what = figure.measures.replace("attack_success", "attack success").replace("over_refusal", "over-refusal")
        title = f"{figure.suite}: {what} by category, judge {figure.judge}"
        charts.append(intervals(f"category-{i}", title, groups, better="lower"))
    return charts


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]
