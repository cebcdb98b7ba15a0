"""Charts as Vega-Lite specifications, each with its data as a table. Colours come from the page's style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_report.blocks import Chart, Table

COLOURS = 8
"""How many series have a colour of their own; ``templates/style.css`` defines them as ``--c1`` to ``--c8``."""
DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3])
FULL_HEIGHT = 240

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A series of a line chart.

    Attributes:
        points: ``(x, y)``.
        colour: its number; None for the place among the lines.
        sparse: marked by dots, such as the few evaluations beside all training steps.
    """

    name: str
    points: Sequence[Point]
    sparse: bool = False
    colour: int | None = None


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


def lines(
    name: str,
    title: str,
    series: Sequence[Line],
    *,
    description: str = "",
    y: str = "",
    x: str = "step",
    rule: tuple[float, str] | None = None,
    note: str = "",
    height: int = FULL_HEIGHT,
) -> Chart:
    """A line chart of one or several series.

    Args:
        rule: a horizontal line with its meaning.
    """
    names = [one.name for one in series]
    values = [
        {"s": one.name, "x": rounded(a), "y": rounded(b), "e": int(one.sparse)} for one in series for a, b in one.points
    ]
    colour = {"field": "s", "type": "nominal", "title": None, "scale": _scale(series, _colour), "legend": _legend(names)}
    # One dash per series too: colour alone is lost on some eyes and in print.
    dash = {"field": "s", "type": "nominal", "title": None, "scale": _scale(series, _dash), "legend": _legend(names)}
    axes = {
        "x": {"field": "x", "type": "quantitative", "title": x, "axis": {"tickMinStep": 1}, "scale": {"nice": False}},
        "y": {"field": "y", "type": "quantitative", "title": y or None, "scale": {"zero": False}},
    }
    tooltip = [
        *([{"field": "s", "title": "series"}] if len(names) > 1 else []),
        {"field": "x", "title": x},
        {"field": "y", "title": y or title, "format": ".4~g"},
    ]
    hover = {"name": "hover", "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}}
    layers: list[dict[str, Any]] = []
    if rule:
        mark = {"type": "rule", "strokeDash": [3, 3], "color": "var(--muted)", "aria": False}
        layers.append({"data": {"values": [{"y": rule[0]}]}, "mark": mark, "encoding": {"y": axes["y"]}})
    layers += [
        {"mark": {"type": "line", "aria": False}, "encoding": {**axes, "color": colour, "strokeDash": dash}},
        {
            "params": [hover],
            "mark": {"type": "point", "filled": True, "size": 45, "aria": False},
            "encoding": {
                **axes,
                "color": colour,
                "tooltip": tooltip,
                "opacity": {
                    "condition": [{"param": "hover", "empty": False, "value": 1}, {"test": "datum.e", "value": 1}],
                    "value": 0,
                },
            },
        },
    ]
    spec = {"height": height, "data": {"values": values}, "layer": layers}
    return Chart(name, title, description or _described(title, series, x), spec, _by_x(title, series, x), note)


def intervals(name: str, title: str, groups: Sequence[Interval], *, x: str, better: str | None, note: str = "") -> Chart:
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
    direction = f" ({better} is better)" if better else ""
    y = {"field": "g", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 260}}

    def across(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": f"{x}{direction}", "scale": {"zero": False}}

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
    described = f"{title}{direction}: " + "; ".join(f"{one.group} {shown(one.mean)}" for one in groups[:12])
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
    values = [
        {key: rounded(value) if isinstance(value, float) else value for key, value in point.items()} for point in points
    ]
    axis = {"type": "quantitative", "scale": {"zero": False, "padding": 12}}
    tooltip = [{"field": one, **({} if one == label else {"format": ".4~g"})} for one in fields]
    encoding: dict[str, Any] = {
        "x": {"field": x, **axis},
        "y": {"field": y, **axis},
        "tooltip": tooltip,
        "color": {
            "field": mark,
            "type": "nominal",
            "scale": {"domain": ["yes", "no"], "range": ["var(--c1)", "var(--muted)"]},
            "legend": {"orient": "top", "title": mark},
        },
        "shape": {
            "field": mark,
            "type": "nominal",
            "scale": {"domain": ["yes", "no"], "range": ["diamond", "circle"]},
            "legend": {"orient": "top", "title": mark},
        },
    }
    if size:
        encoding["size"] = {
            "field": size,
            "type": "quantitative",
            "scale": {"zero": False, "range": [40, 260]},
            "legend": {"orient": "bottom", "direction": "horizontal"},
        }
    else:
        encoding["size"] = {"value": 90}
    text = {
        "transform": [{"filter": {"field": mark, "equal": "yes"}}],
        "mark": {"type": "text", "dy": -12, "fontSize": 11, "aria": False, "color": "var(--ink)"},
        "encoding": {"x": encoding["x"], "y": encoding["y"], "text": {"field": label}},
    }
    dots = {"mark": {"type": "point", "filled": True, "opacity": 0.9, "aria": False}, "encoding": encoding}
    columns = (label, x, y, *([size] if size else []), mark)
    rows = [[shown(point[one]) if isinstance(point[one], float) else str(point[one]) for one in columns] for point in points]
    described = f"{title}: {y} over {x}; {sum(point[mark] == 'yes' for point in points)} of {len(points)} {mark}"
    spec = {"height": 340, "data": {"values": values}, "layer": [dots, text]}
    table = Table(title, columns, rows, figures=tuple(range(1, len(fields))))
    return Chart(name, title, described, spec, table, note)


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


def _scale(series: Sequence[Line], value: Callable[[int, Line], Any]) -> dict[str, Any]:
    return {"domain": [one.name for one in series], "range": [value(i, one) for i, one in enumerate(series)]}


def _colour(place: int, line: Line) -> str:
    return f"var(--c{(place if line.colour is None else line.colour) % COLOURS + 1})"


def _dash(place: int, line: Line) -> list[int]:
    if line.colour is not None:
        return DASHES[1 if line.sparse else 0]
    return DASHES[place % len(DASHES)]


def _legend(names: Sequence[str]) -> dict[str, Any] | None:
    if len(names) < 2:
        return None
    columns = 1 if max(map(len, names)) > 24 else 2
    return {"orient": "bottom", "direction": "horizontal", "columns": columns, "symbolType": "stroke", "labelLimit": 280}


def _described(title: str, series: Sequence[Line], x: str) -> str:
    ends = [f"{one.name} from {shown(one.points[0][1])} to {shown(one.points[-1][1])}" for one in series if one.points]
    return f"{title} by {x}: " + "; ".join(ends[:8])


def _by_x(title: str, series: Sequence[Line], x: str) -> Table:
    """One row for each x, one column for each series."""
    columns = [dict(one.points) for one in series]
    places = sorted({place for column in columns for place in column})
    rows = [[shown(place), *(shown(column.get(place)) for column in columns)] for place in places]
    return Table(title, (x, *(one.name for one in series)), rows, figures=tuple(range(1, len(series) + 1)))
