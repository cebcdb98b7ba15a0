"""Curves as text: a line of braille dots, or of plain characters where the terminal has no others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character, by row and column."""


def chart(values: Sequence[float], width: int, height: int, *, plain: bool = False) -> list[str]:
    """``height`` lines of ``width`` characters that show the values from left to right, the largest on top.

    Where there are more values than columns, a column shows the mean of its share.
    """
    across, down = (1, 1) if plain else (2, 4)
    columns, rows = width * across, height * down
    shown = binned(values, columns)
    if not shown:
        return [" " * width] * height
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    heights = [round((value - low) / span * (rows - 1)) if high > low else rows // 2 for value in shown]
    grid = [[0] * width for _ in range(height)]
    before = heights[0]
    for x, y in enumerate(heights):
        # A steep change is drawn as a vertical stroke, so that the curve does not fall apart.
        stroke = range(before + 1, y + 1) if y > before else range(y, before) if y < before else (y,)
        for level in stroke:
            row = rows - 1 - level
            grid[row // down][x // across] |= 1 if plain else DOTS[row % down][x % across]
        before = y
    symbols = (lambda bits: "*" if bits else " ") if plain else (lambda bits: chr(0x2800 + bits) if bits else " ")
    return ["".join(map(symbols, line)) for line in grid]


def binned(values: Sequence[float], columns: int) -> list[float]:
    """At most ``columns`` values: means of equal shares where there are more."""
    count = len(values)
    if count <= columns:
        return list(values)
    edges = [i * count // columns for i in range(columns + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
