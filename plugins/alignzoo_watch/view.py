"""Draws the state of a run or a sweep, fitted to the size of the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from alignzoo.base.shown import printable
from alignzoo.cli.reporter import duration
from alignzoo_watch.chart import chart
from alignzoo_watch.state import CellState, RunState, SweepState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

USUAL = ("loss", "rewards/margins", "logps/chosen", "logps/rejected", "rewards/accuracies", "geometry/*", "grad_norm")
"""The curves that are drawn first."""
FACTS = ("lr", "step_seconds", "tokens", "total_tokens")
"""Figures of a step that are no curves."""
WIDE, LEAST = 80, 5
"""Characters from which charts stand side by side, and lines of the smallest chart with its title."""
SYMBOLS = {"finished": "✓", "running": "▶", "failed": "✗", "stopped": "‖", "waiting": "·"}
PLAIN_SYMBOLS = {"finished": "+", "running": ">", "failed": "x", "stopped": "=", "waiting": "."}
STYLES = {"finished": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "waiting": "dim"}


def draw(
    state: RunState | SweepState, width: int, height: int, *, patterns: Sequence[str] = (), plain: bool = False
) -> RenderableType:
    """The state in at most this many characters and lines.

    Args:
        patterns: names of the curves to draw, ``*`` for any characters; the usual ones without any.
        plain: whether the terminal has ASCII characters only.
    """
    from rich.console import Group

    if isinstance(state, RunState):
        return Group(*_run(state, width, height, patterns, plain=plain))
    return Group(*_sweep(state, width, height, plain=plain))


def _line(text: str, style: str = "") -> Text:
    """One line, cut at the edge of the terminal."""
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _run(state: RunState, width: int, height: int, patterns: Sequence[str], *, plain: bool) -> list[RenderableType]:
    lines: list[RenderableType] = [_line(f"{state.folder}  {state.sentence}".rstrip(), "bold")]
    lines += [_line(_status(state), STYLES[state.status])]
    if state.steps:
        lines.append(_line(bar(state.step, state.steps, min(width, 60), plain=plain)))
    if state.status == "stopped":
        lines.append(_line(f"resume with: alignzoo run --resume {state.folder}"))
    if state.after:
        lines += [_line(f"  {name} {value:.4g}") for name, value in list(state.after.items())[: max(0, height // 3)]]
    return lines + _charts(state, width, height - len(lines), patterns, plain=plain)


def _status(state: RunState) -> str:
    if state.status == "waiting":
        return "waiting for the run to start"
    words = [state.status, f"step {state.step:,}" + (f" of {state.steps:,}" if state.steps else "")]
    if state.tokens_per_second is not None:
        words.append(f"{state.tokens_per_second:,.0f} tokens/s")
    if state.seconds_per_step is not None:
        words.append(f"{state.seconds_per_step:.3g} s/step")
    if state.seconds_left is not None:
        words.append(f"{duration(state.seconds_left)} left")
    if state.status == "running" and state.quiet is not None and state.quiet > 10 * (state.seconds_per_step or 1) + 5:
        words.append(f"last step {duration(state.quiet)} ago")
    return ", ".join(words)


def bar(done: float, total: float, width: int, *, plain: bool = False) -> str:
    """A bar and its percentage, ``width`` characters in all."""
    room, share = max(1, width - 5), min(1.0, done / total) if total else 0.0
    full = int(share * room)
    on, off = ("#", "-") if plain else ("━", "─")
    return f"{on * full}{off * (room - full)} {share:4.0%}"


def curves_of(names: Iterable[str], patterns: Sequence[str] = ()) -> list[str]:
    """The figures to draw, in order: those that match the patterns, or the usual ones and then the others."""
    known = [name for name in names if name not in FACTS]
    ordered = [name for pattern in patterns or USUAL for name in known if fnmatchcase(name, pattern)]
    return list(dict.fromkeys(ordered if patterns else [*ordered, *known]))


def _charts(state: RunState, width: int, room: int, patterns: Sequence[str], *, plain: bool) -> list[RenderableType]:
    """As many charts as fit, side by side where the terminal is wide."""
    from rich.table import Table

    names = curves_of(state.curves, patterns)
    columns = 2 if width >= WIDE and len(names) > 1 else 1
    rows = min(max(0, room) // LEAST, -(-len(names) // columns))
    if rows == 0:
        return []
    height, each = min(room // rows, 10), width // columns - 1
    grid = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(columns):
        grid.add_column(width=each, no_wrap=True)
    shown = names[: rows * columns]
    for start in range(0, len(shown), columns):
        cells = [_panel(state, name, each, height, plain=plain) for name in shown[start : start + columns]]
        grid.add_row(*cells)
    return [grid]


def _panel(state: RunState, name: str, width: int, height: int, *, plain: bool) -> Text:
    from rich.text import Text

    values = [value for _, value in state.curves[name]]
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    margin = max(len(low), len(high)) + 1
    drawn = chart(values, max(1, width - margin), max(1, height - 1), plain=plain)
    text = Text(no_wrap=True, overflow="crop")
    text.append(printable(name), "bold").append(f"  {values[-1]:.4g}\n")
    for i, line in enumerate(drawn):
        label = high if i == 0 else low if i == len(drawn) - 1 and low != high else ""
        text.append(f"{label:>{margin - 1}} ", "dim").append(line, "cyan").append("\n" if i < len(drawn) - 1 else "")
    return text


def _sweep(state: SweepState, width: int, height: int, *, plain: bool) -> list[RenderableType]:
    counts, symbols = state.counts, PLAIN_SYMBOLS if plain else SYMBOLS
    lines: list[RenderableType] = [
        _line(f"{state.folder}  {len(state.cells)} runs, seeds {_listed(state.seeds)}", "bold")
    ]
    words = [f"{symbols[status]} {counts[status]} {status}" for status in symbols if counts[status]]
    if state.tokens_per_second is not None:
        words.append(f"{state.tokens_per_second:,.0f} tokens/s")
    if state.seconds_left is not None:
        words.append(f"about {duration(state.seconds_left)} left")
    lines.append(_line(", ".join(words)))
    lines.append(_line(bar(counts["finished"] + counts["failed"], len(state.cells), min(width, 60), plain=plain)))
    room = height - len(lines)
    active = [cell for cell in state.cells if cell.status in ("running", "stopped")]
    failed = [cell for cell in state.cells if cell.status == "failed" and cell.failure is not None]
    lines += _some([_active(cell, symbols) for cell in active], room // 3)
    lines += _some([_failed(cell, symbols) for cell in failed], room // 4)
    return lines + _some(_points(state, symbols), height - len(lines))


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")


def _some(lines: list[Text], most: int) -> list[RenderableType]:
    """The first lines, and how many there are more."""
    if len(lines) <= most or most < 1:
        return [*lines[: max(0, most)]]
    return [*lines[: most - 1], _line(f"  … and {len(lines) - most + 1} more", "dim")]


def _active(cell: CellState, symbols: dict[str, str]) -> Text:
    words = [f"step {cell.step or 0:,}" + (f" of {cell.steps:,}" if cell.steps else "")]
    words += [] if cell.loss is None else [f"loss {cell.loss:.4f}"]
    words += [] if cell.seconds_left is None else [f"{duration(cell.seconds_left)} left"]
    return _line(f"{symbols[cell.status]} {cell.label} seed {cell.seed}: {', '.join(words)}", STYLES[cell.status])


def _failed(cell: CellState, symbols: dict[str, str]) -> Text:
    error = cell.failure.error.splitlines()[0] if cell.failure and cell.failure.error else ""
    return _line(f"{symbols['failed']} {cell.label} seed {cell.seed}: {error}", STYLES["failed"])


def _points(state: SweepState, symbols: dict[str, str]) -> list[Text]:
    """A line per point of the grid: a symbol for every seed."""
    from rich.text import Text

    points: dict[str, dict[int, CellState]] = {}
    for cell in state.cells:
        points.setdefault(cell.label, {})[cell.seed] = cell
    lines = []
    for label, cells in points.items():
        text = Text(no_wrap=True, overflow="ellipsis")
        for cell in cells.values():
            text.append(symbols[cell.status], STYLES[cell.status])
        lines.append(text.append(f" {printable(label)}"))
    return lines
