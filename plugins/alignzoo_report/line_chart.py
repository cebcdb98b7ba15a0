"""Line charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_report.blocks import Chart, Table
from alignzoo_report.charts import COLOURS, rounded, shown

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
    colour = {
        "field": "s",
        "type": "nominal",
        "title": None,
        "scale": _scale(series, _colour),
        "legend": _legend(names),
    }
    # One dash per series too: colour alone is lost on some eyes and in print.
    dash = {"field": "s", "type": "nominal", "title": None, "scale": _scale(series, _dash), "legend": _legend(names)}
    axes, tooltip = _axes(x, y), _tooltip(title, names, x, y)
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


def _axes(x: str, y: str) -> dict[str, Any]:
    return {
        "x": {"field": "x", "type": "quantitative", "title": x, "axis": {"tickMinStep": 1}, "scale": {"nice": False}},
        "y": {"field": "y", "type": "quantitative", "title": y or None, "scale": {"zero": False}},
    }


def _tooltip(title: str, names: Sequence[str], x: str, y: str) -> list[dict[str, Any]]:
    return [
        *([{"field": "s", "title": "series"}] if len(names) > 1 else []),
        {"field": "x", "title": x},
        {"field": "y", "title": y or title, "format": ".4~g"},
    ]


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
    return {
        "orient": "bottom",
        "direction": "horizontal",
        "columns": columns,
        "symbolType": "stroke",
        "labelLimit": 280,
    }


def _described(title: str, series: Sequence[Line], x: str) -> str:
    ends = [f"{one.name} from {shown(one.points[0][1])} to {shown(one.points[-1][1])}" for one in series if one.points]
    return f"{title} by {x}: " + "; ".join(ends[:8])


def _by_x(title: str, series: Sequence[Line], x: str) -> Table:
    """One row for each x, one column for each series."""
    columns = [dict(one.points) for one in series]
    places = sorted({place for column in columns for place in column})
    rows = [[shown(place), *(shown(column.get(place)) for column in columns)] for place in places]
    return Table(title, (x, *(one.name for one in series)), rows, figures=tuple(range(1, len(series) + 1)))
