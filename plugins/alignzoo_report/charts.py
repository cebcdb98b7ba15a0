"""Charts as Vega-Lite specifications, each with its data as a table. Colours come from the page's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_report.blocks import Chart, Table

COLOURS = 8
"""How many series have a colour of their own; ``templates/style.css`` defines them as ``--c1`` to ``--c8``."""


@dataclass(frozen=True)
class Interval:
    """A figure of a group with its interval, for :func:`intervals`."""

    group: str
    mean: float
    low: float | None
    high: float | None
    values: Sequence[float] = ()


def rounded(value: float) -> float:
    """To five digits, which is what a chart can show."""
    return float(f"{value:.5g}")


def shown(value: float | None) -> str:
    """A number for a table."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def intervals(name: str, title: str, groups: Sequence[Interval], *, better: str | None, note: str = "") -> Chart:
    """A figure of several groups: a dot for each mean, its interval, and faint dots for single seeds."""
    order = [one.group for one in groups]
    rows = [
        {
            "g": one.group,
            "m": rounded(one.mean),
            **({} if one.low is None or one.high is None else {"l": rounded(one.low), "h": rounded(one.high)}),
        }
        for one in groups
    ]
    seeds = [{"g": one.group, "v": rounded(value)} for one in groups for value in one.values]
    direction = f"{better} is better" if better else ""
    y = {"field": "g", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 260}}

    def across(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": direction or None, "scale": {"zero": False}}

    tooltip = [
        {"field": "g", "title": "group"},
        {"field": "m", "title": "mean", "format": ".4~g"},
        {"field": "l", "title": "95 % from", "format": ".4~g"},
        {"field": "h", "title": "to", "format": ".4~g"},
    ]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": seeds},
            "mark": {"type": "point", "filled": True, "size": 18, "opacity": 0.35, "color": "var(--c2)", "aria": False},
            "encoding": {"y": y, "x": across("v")},
        },
        {
            "transform": [{"filter": "isValid(datum.l)"}],
            "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--c1)", "aria": False},
            "encoding": {"y": y, "x": across("l"), "x2": {"field": "h"}, "tooltip": tooltip},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "color": "var(--c1)", "opacity": 1, "aria": False},
            "encoding": {"y": y, "x": across("m"), "tooltip": tooltip},
        },
    ]
    columns = ("group", "mean", "95 % from", "to", "seeds")
    table = [[one.group, shown(one.mean), shown(one.low), shown(one.high), str(len(one.values))] for one in groups]
    spec = {"height": 24 * len(groups), "data": {"values": rows}, "layer": layers}
    described = f"{title} ({direction}): " + "; ".join(f"{one.group} {shown(one.mean)}" for one in groups[:12])
    return Chart(name, title, described, spec, Table(title, columns, table, figures=(1, 2, 3, 4)), note)


def scatter(
    name: str,
    title: str,
    points: Sequence[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    size: str | None,
    mark: str,
    note: str = "",
) -> Chart:
    """Labelled points; those with a true ``mark`` stand out. ``x``, ``y``, ``size`` and ``mark`` are fields of points,
    and the first field is their name."""
    label = next(iter(points[0]))
    fields = [label, x, y, *([size] if size else [])]
    best, rest = [point[label] for point in points if point[mark] == "yes"], f"not {mark}"
    values = [
        {
            **{key: rounded(value) if isinstance(value, float) else value for key, value in point.items()},
            "c": point[label] if point[mark] == "yes" else rest,
        }
        for point in points
    ]
    axis = {"type": "quantitative", "scale": {"zero": False, "padding": 12}}
    tooltip = [{"field": one, **({} if one == label else {"format": ".4~g"})} for one in fields]
    encoding: dict[str, Any] = {
        "x": {"field": x, **axis},
        "y": {"field": y, **axis},
        "tooltip": tooltip,
        **_standing_out(mark, best, rest),
    }
    if size:
        encoding["size"] = {
            "field": size,
            "type": "quantitative",
            "scale": {"zero": False, "range": [40, 260]},
            "legend": None,
        }
    else:
        encoding["size"] = {"value": 90}
    dots = {"mark": {"type": "point", "filled": True, "opacity": 0.9, "aria": False}, "encoding": encoding}
    columns = (label, x, y, *([size] if size else []), mark)
    rows = [
        [shown(point[one]) if isinstance(point[one], float) else str(point[one]) for one in columns] for point in points
    ]
    described = f"{title}: {y} over {x}; {sum(point[mark] == 'yes' for point in points)} of {len(points)} {mark}"
    spec = {"height": 340, "data": {"values": values}, **dots}
    table = Table(title, columns, rows, figures=tuple(range(1, len(fields))))
    return Chart(name, title, described, spec, table, note)


def _standing_out(mark: str, best: Sequence[Any], rest: str) -> dict[str, Any]:
    """A colour of its own for each of the best, grey for the rest."""
    return {
        "color": {
            "field": "c",
            "type": "nominal",
            "scale": {
                "domain": [*best, rest],
                "range": [*(f"var(--c{i % COLOURS + 1})" for i in range(len(best))), "var(--muted)"],
            },
            "legend": {"orient": "bottom", "title": mark, "columns": 2, "labelLimit": 280, "symbolType": "diamond"},
        },
        "shape": {
            "field": mark,
            "type": "nominal",
            "scale": {"domain": ["yes", "no"], "range": ["diamond", "circle"]},
            "legend": None,
        },
    }


def strip(
    name: str, title: str, groups: Mapping[str, Sequence[float]], *, x: str, rule: tuple[float, str] | None = None
) -> Chart:
    """Single values of some groups as ticks, with a row for each group."""
    values = [{"g": group, "v": rounded(value)} for group, some in groups.items() for value in some]
    across = {"field": "v", "type": "quantitative", "title": x, "scale": {"zero": False}}
    y = {"field": "g", "type": "nominal", "sort": list(groups), "title": None}
    ticks = {
        "mark": {"type": "tick", "opacity": 0.45, "thickness": 1.5, "aria": False},
        "encoding": {
            "x": across,
            "y": y,
            "color": {"field": "g", "type": "nominal", "scale": _colours(list(groups)), "legend": None},
            "tooltip": [{"field": "g", "title": "rows"}, {"field": "v", "title": x, "format": ".4~g"}],
        },
    }
    layers: list[dict[str, Any]] = [ticks]
    if rule:
        mark = {"type": "rule", "strokeDash": [3, 3], "color": "var(--muted)", "aria": False}
        layers.insert(0, {"data": {"values": [{"v": rule[0]}]}, "mark": mark, "encoding": {"x": across}})
    rows = [
        [group, str(len(some)), *(shown(_quantile(some, share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0))]
        for group, some in groups.items()
    ]
    table = Table(title, ("rows", "number", "least", "quarter", "median", "three quarters", "most"), rows, range(1, 7))
    described = "; ".join(f"{row[0]}: median {row[4]}" for row in rows)
    spec = {"height": 44 * len(groups), "data": {"values": values}, "layer": layers}
    return Chart(name, title, f"{title}. {described}", spec, table, rule[1] if rule else "")


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def _colours(names: Sequence[str]) -> dict[str, Any]:
    return {"domain": list(names), "range": [f"var(--c{i % COLOURS + 1})" for i in range(len(names))]}
