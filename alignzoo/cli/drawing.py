"""Diagrams as text of braille dots, as SVG, and as files through matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from alignzoo.cli.curves import Curve, Panel
from alignzoo.errors import UsageError

ROWS, GAP = 9, 3
"""Lines of a diagram in the terminal, and columns between two."""
SIDE_BY_SIDE = 84
"""Columns from which two diagrams stand side by side."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille bits by row and column of a character's 2 × 4 dots."""
_WIDE, _HIGH = 330, 210
"""Size of a diagram in an SVG."""
_COLOURS = ("#4f7df0", "#e0803a", "#3aa876")
_INK = "#808a96"
"""Of axes and words: readable on white and on black."""
_DASHES = ("", "5 3", "1.5 3")


def drawn(panels: Sequence[Panel], width: int) -> list[str]:
    """Diagrams as lines of at most ``width`` columns, next to each other if they have room."""
    if not panels:
        return []
    abreast = len(panels) if width >= SIDE_BY_SIDE else 1
    room = min((width - GAP * (abreast - 1)) // abreast, 60)
    blocks = [_text(panel, room) for panel in panels]
    lines = list[str]()
    for first in range(0, len(blocks), abreast):
        rows = zip(*blocks[first : first + abreast], strict=True)
        lines += [(" " * GAP).join(cell.ljust(room) for cell in row).rstrip() for row in rows]
    legend = [f"{mark} {curve.name}" for mark, curve in zip("━┅┈", panels[0].curves, strict=False) if curve.name]
    return [*lines, *(["  ".join(legend)] if legend else []), f"against: {panels[0].x_label}"]


def _text(panel: Panel, width: int) -> list[str]:
    """One diagram: a title, rows of dots with the limits of both axes."""
    (left, right), (low, high) = _limits(panel)
    ends = [number(_rounded(value, high - low)) for value in (high, low)]
    margin = max(map(len, ends))
    cells = width - margin - 1
    dots: set[tuple[int, int]] = set()

    def place(x: float, y: float) -> tuple[int, int]:
        across = round((x - left) / (right - left) * (2 * cells - 1))
        return across, round((high - y) / (high - low) * (4 * ROWS - 1))

    if low < 0 < high:
        dots |= {(across, place(left, 0.0)[1]) for across in range(0, 2 * cells, 4)}
    for i, curve in enumerate(panel.curves):
        line = [place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        dots |= {dot for dot in _joined(line) if i == 0 or dot[0] % (4 * i + 4) < 4 - i}
    rows = ["".join(_cell(dots, column, row) for column in range(cells)) for row in range(ROWS)]
    labels = [ends[0], *[""] * (ROWS - 2), ends[1]]
    zero = "0" if left < 0 < right else ""
    foot = f"{number(left)}{zero.center(cells - len(number(left)) - len(number(right)))}{number(right)}"
    body = [f"{label.rjust(margin)} {row}" for label, row in zip(labels, rows, strict=True)]
    return [f"{' ' * margin} {panel.title}", *body, f"{' ' * margin} {foot}"]


def _joined(line: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots of a line through these, without gaps."""
    for (x, y), (to_x, to_y) in itertools.pairwise(line):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for i in range(steps + 1):
            yield x + round((to_x - x) * i / steps), y + round((to_y - y) * i / steps)


def _cell(dots: set[tuple[int, int]], column: int, row: int) -> str:
    bits = sum(
        bit
        for down, pair in enumerate(_DOTS)
        for across, bit in enumerate(pair)
        if (2 * column + across, 4 * row + down) in dots
    )
    return chr(0x2800 + bits) if bits else " "


def _limits(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of both axes; a flat line has room above and below."""
    x = [value for curve in panel.curves for value in curve.x]
    y = [value for curve in panel.curves for value in curve.y if math.isfinite(value)] or [0.0]
    low, high = min(y), max(y)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 1, high + 1
    return (min(x), max(x)), (low, high)


def _rounded(value: float, extent: float) -> float:
    """A limit without what nobody sees in a diagram."""
    return 0.0 if abs(value) < extent / 200 else value


def number(value: float) -> str:
    """A limit of an axis in few characters, with a real minus sign and no negative zero."""
    text = f"{value:.3g}"
    return ("0" if float(text) == 0 else text).replace("-", "−").replace("e+0", "e").replace("e−0", "e−")


def svg(panels: Sequence[Panel], title: str) -> str:
    """Diagrams side by side as an SVG without fonts, scripts or dates, for light and dark pages."""
    legend = [curve for curve in panels[0].curves if curve.name]
    width, height = _WIDE * len(panels), _HIGH + (18 if legend else 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="11" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
    ]
    for i, panel in enumerate(panels):
        lines += [f'<g transform="translate({i * _WIDE} 0)">', *_panel(panel), "</g>"]
    for i, curve in enumerate(legend):
        across, y = 48 + i * 150, _HIGH + 8
        lines.append(f'<path d="M{across} {y}h24" {_stroke(i)}/>')
        lines.append(f'<text x="{across + 30}" y="{y + 4}">{escape(curve.name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    """The elements of one diagram."""
    (left, right), (low, high) = _limits(panel)
    x0, x1, y0, y1 = 48.0, _WIDE - 14.0, 24.0, _HIGH - 38.0

    def at(x: float, y: float) -> tuple[float, float]:
        return x0 + (x - left) / (right - left) * (x1 - x0), y1 - (y - low) / (high - low) * (y1 - y0)

    yield f'<text x="{x0:g}" y="14" font-weight="600">{escape(panel.title)}</text>'
    for tick in _ticks(low, high):
        y = at(left, tick)[1]
        yield f'<path d="M{x0:g} {y:.1f}H{x1:g}" stroke="{_INK}" stroke-opacity="{0.6 if tick == 0 else 0.2}"/>'
        yield f'<text x="{x0 - 5:g}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    for tick in _ticks(left, right):
        x = at(tick, low)[0]
        yield f'<path d="M{x:.1f} {y0:g}V{y1:g}" stroke="{_INK}" stroke-opacity="{0.6 if tick == 0 else 0.2}"/>'
        yield f'<text x="{x:.1f}" y="{y1 + 14:g}" text-anchor="middle">{number(tick)}</text>'
    yield f'<text x="{(x0 + x1) / 2:g}" y="{y1 + 30:g}" text-anchor="middle">{escape(panel.x_label)}</text>'
    for i, curve in enumerate(panel.curves):
        yield f'<path d="{_path(curve, at)}" {_stroke(i)}/>'


def _path(curve: Curve, at: object) -> str:
    assert callable(at)
    points = [at(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stroke(i: int) -> str:
    dashes = f' stroke-dasharray="{_DASHES[i % 3]}"' if _DASHES[i % 3] else ""
    return f'fill="none" stroke="{_COLOURS[i % 3]}" stroke-width="2" stroke-linejoin="round"{dashes}'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits, four to eight of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.8)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def save_plot(panels: Sequence[Panel], path: Path, title: str) -> None:
    """Write diagrams to a ``.png`` or ``.svg``.

    Raises:
        UsageError: another ending, matplotlib is missing, or the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot {path}: neither .png nor .svg", hint=f"--plot {path.with_suffix('.png')}")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib", hint="pip install 'alignzoo[plots]'") from error
    figure = Figure(figsize=(4.6 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for i, curve in enumerate(panel.curves):
            axes.plot(curve.x, curve.y, ("-", "--", ":")[i % 3], color=_COLOURS[i % 3], label=curve.name or None)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.x_label)
        axes.grid(alpha=0.3)
        if any(curve.name for curve in panel.curves):
            axes.legend(fontsize=8)
    try:
        with rc_context({"svg.hashsalt": "alignzoo"}):
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="choose another --plot") from error
