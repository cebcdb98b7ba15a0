"""Plots of a probe and of the loss around a model's weights; they need matplotlib (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.errors import UsageError
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2430", "#7a8194", "#e3e6ee"
_BESIDE_A_POINT: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": MUTED}
COLOURS = ("#c2452d", "#2f6db5", "#3c8a57", "#8a5aa8")


def drawn_or_told(draw: Callable[[], None], path: Path, report: Reporter) -> bool:
    """Draw a result's plot; a failure is a warning and does not affect the result."""
    try:
        draw()
    except UsageError as error:
        report.warn(f"{path.name} was not drawn: {error.message}; {error.hint}")
        return False
    return True


def draw_probe(path: Path, facts: Mapping[str, Any], selection: Mapping[str, Any] | None) -> None:
    """Held-out AUC by layer (if several were probed), the calibration curve, and the selected neurons by layer.

    Args:
        facts: of a :class:`~alignzoo.probe.probe.Probe`.
        selection: ``neurons_by_layer``, ``neurons`` and ``select``; None to leave it out.

    Raises:
        UsageError: matplotlib is missing.
    """
    panels: list[Callable[[Axes], None]] = []
    if "layers" in facts:
        panels.append(lambda axes: _auc_by_layer(axes, facts))
    panels.append(lambda axes: _calibration(axes, facts))
    if selection is not None:
        panels.append(lambda axes: _neurons_by_layer(axes, selection))
    figure = _figure(4.6 * len(panels), 4.0)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
        _tidy(axes)
    figure.savefig(path)


def draw_slices(path: Path, subspaces: Sequence[Mapping[str, Any]], title: str) -> None:
    """Loss increase over the radius in each subspace: worst case, and average with its spread.

    Args:
        subspaces: as :func:`alignzoo_analysis.sharpness.measure` gives them.

    Raises:
        UsageError: matplotlib is missing.
    """
    figure = _figure(10.4, 4.2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    worst_case, on_average = figure.subplots(1, 2)
    for subspace, colour in zip(subspaces, COLOURS, strict=False):
        _slice_at_the_worst(worst_case, subspace, colour)
        _slice_on_average(on_average, subspace, colour)
    # Subspaces differ by orders of magnitude; on these axes a straight line of slope 1 is a linear rise, 2 a quadratic.
    rises = [point["worst"] for subspace in subspaces for point in subspace["slices"] if point["worst"] is not None]
    if rises and min(rises) > 0:
        worst_case.set_xscale("log")
        worst_case.set_yscale("log")
        radii = [point["radius"] for point in subspaces[0]["slices"]]
        worst_case.set_xticks(radii, [f"{radius:g}" for radius in radii])
        worst_case.minorticks_off()
    _title(worst_case, "worst case: one ascent step")
    worst_case.set_ylabel("loss increase on held-out pairs")
    _title(on_average, "average over random directions, ± standard deviation")
    on_average.axhline(0, color=MUTED, linewidth=0.8)
    on_average.set_xlim(left=0)
    on_average.ticklabel_format(axis="y", scilimits=(-3, 4))
    for axes in (worst_case, on_average):
        axes.set_xlabel("radius: norm of the perturbation")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
        _tidy(axes)
    figure.savefig(path)


def _slice_at_the_worst(axes: Axes, subspace: Mapping[str, Any], colour: str) -> None:
    points = [point for point in subspace["slices"] if point["worst"] is not None]
    if points:
        radii, rises = ([point[name] for point in points] for name in ("radius", "worst"))
        axes.plot(radii, rises, color=colour, marker="o", markersize=4, label=subspace["name"])


def _slice_on_average(axes: Axes, subspace: Mapping[str, Any], colour: str) -> None:
    radii, mean, spread = (
        [0.0, *(point[name] for point in subspace["slices"])] for name in ("radius", "average", "spread")
    )
    low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
    axes.plot(radii, mean, color=colour, marker="o", markersize=4, label=subspace["name"])
    axes.fill_between(radii, low, high, color=colour, alpha=0.15, linewidth=0)


def _auc_by_layer(axes: Axes, facts: Mapping[str, Any]) -> None:
    layers = [row["layer"] for row in facts["layers"]]
    axes.plot(layers, [row["held_out_auc"] for row in facts["layers"]], color=COLOURS[1], marker="o", markersize=4)
    axes.plot(facts["layer"], facts["held_out_auc"], color=COLOURS[0], marker="o", markersize=8, linestyle="none")
    axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
    lowest = min(0.5, *(row["held_out_auc"] for row in facts["layers"]))
    axes.set_ylim(lowest - 0.03, 1.03)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("hidden layer")
    axes.set_ylabel("held-out AUC")
    _title(axes, f"layer {facts['layer']} is saved, AUC {facts['held_out_auc']:.3f}")


def _calibration(axes: Axes, facts: Mapping[str, Any]) -> None:
    curve = facts["held_out_calibration"]
    most = max(part["count"] for part in curve)
    stated, observed = ([part[name] for part in curve] for name in ("stated", "observed"))
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    axes.scatter(stated, observed, s=[15 + 90 * part["count"] / most for part in curve], color=COLOURS[1], zorder=3)
    for x, y, part in zip(stated, observed, curve, strict=True):  # a bin of two responses is not informative
        inward = -1 if y > 0.9 else 1
        axes.annotate(f"{part['count']}", (x, y), (0, 10 * inward), textcoords="offset points", **_BESIDE_A_POINT)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("predicted probability of unsafe (labels: responses per bin)")
    axes.set_ylabel("observed share of unsafe")
    _title(axes, f"ECE {facts['held_out_ece']:.3f}, Brier {facts['held_out_brier']:.3f}")


def _neurons_by_layer(axes: Axes, selection: Mapping[str, Any]) -> None:
    counts = list(selection["neurons_by_layer"].values())
    axes.bar(range(len(counts)), counts, color=COLOURS[1])
    axes.locator_params(axis="both", integer=True)
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("selected neurons")
    _title(axes, f"{selection['neurons']} of {selection['of']} neurons, {selection['select']}")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, y=1.05)  # a fixed height, which an axis exponent cannot shift


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)


def _figure(width: float, height: float) -> Figure:
    """An empty figure for headless drawing.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("a plot needs matplotlib", hint="pip install 'alignzoo[plots]'") from error
    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
