"""Curves of a sweep: the mean over seeds of each group, in small charts of at most eight lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignzoo.comparison.groups import Group
from alignzoo.records.sweep import shown_value
from alignzoo_report.blocks import Chart, Charts, Details, Section, Text
from alignzoo_report.charts import COLOURS
from alignzoo_report.curves import Curves, curves_of, thinned
from alignzoo_report.line_chart import Line, lines

POINTS = 50
"""Most points of a line."""
_SHOWN = {
    "loss": ("Loss", "objective"),
    "rewards/margins": ("Reward margin", "chosen − rejected"),
    "rewards/accuracies": ("Preference accuracy", "share of pairs"),
    "logps/chosen": ("Log-prob of chosen responses", "nats per response"),
    "logps/rejected": ("Log-prob of rejected responses", "nats per response"),
    "geometry/sharpness_gap": ("Sharpness gap", "loss rise"),
    "geometry/survival": ("Survival of the perturbation", "share"),
    "robust/effective_pairs": ("Effective pairs per step", "pairs"),
}


def curves_of_groups(groups: Sequence[Group]) -> Section:
    """One fold for each curve; in it, a chart for each value of the axes that do not tell lines apart."""
    curves = {group.name: [curves_of(run) for run in group.runs.values()] for group in groups}
    panels = _panels(groups)
    blocks: list[Any] = [
        Text("Training curves, means over the seeds of each group, thinned out to at most 50 points a line.")
    ]
    for name, (title, unit) in _SHOWN.items():
        charts = list(_charts(name, title, unit, panels, curves))
        if charts:
            first = name == "loss"
            blocks += [Charts(charts)] if first else [Details(title, [Charts(charts)])]
    return Section("curves", "Training", blocks)


def _charts(
    name: str,
    title: str,
    unit: str,
    panels: Mapping[str, Sequence[tuple[str, Group]]],
    curves: Mapping[str, Sequence[Curves]],
) -> Iterator[Chart]:
    for i, (panel, groups) in enumerate(panels.items()):
        series = []
        for label, group in groups:
            points = _mean([dict(one.logged.get(name, ())) for one in curves[group.name]])
            if points:
                series.append(Line(label, points))
        if series:
            heading = f"{title}, {panel}" if panel else title
            yield lines(f"{name}-{i}", heading, series, y=unit, height=200)


def _mean(runs: Sequence[Mapping[float, float]]) -> list[tuple[float, float]]:
    """The mean over runs at the steps that all of them have."""
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    return thinned([(step, sum(run[step] for run in runs) / len(runs)) for step in steps], POINTS)


def _panels(groups: Sequence[Group]) -> dict[str, list[tuple[str, Group]]]:
    """Groups by chart with their labels in it: as many axes as fit into the colours tell lines apart."""
    values = {word: {shown_value(group.values.get(word)) for group in groups} for word in _words(groups)}
    inside, product = list[str](), 1
    for word, some in values.items():
        if product * len(some) <= COLOURS:
            inside.append(word)
            product *= len(some)
    panels: dict[str, list[tuple[str, Group]]] = {}
    for group in groups:
        panel = " ".join(f"{word}={shown_value(group.values.get(word))}" for word in values if word not in inside)
        label = " ".join(shown_value(group.values.get(word)) for word in inside) or group.label
        panels.setdefault(panel, []).append((label, group))
    return panels


def _words(groups: Sequence[Group]) -> list[str]:
    """The words in which groups differ; what changes the data comes last, so that it divides charts."""
    words = list(dict.fromkeys(word for group in groups for word in group.values))
    telling = [word for word in words if len({shown_value(group.values.get(word)) for group in groups}) > 1]
    return sorted(telling, key=lambda word: word in groups[0].block)
