"""What a sweep is asked to run, and the runs that follow from it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.base.shown import shown
from alignzoo.base.stored import value_digest
from alignzoo.base.suggest import suggest
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer
from alignzoo.plan.settings import Settings
from alignzoo.records.sweep import Cell
from alignzoo.sweeps.words import written

LONGEST_NAME = 120
"""Characters of a point in the names of its cells."""
_FIXED = {
    "seed": "list seeds with --seeds",
    "out": "each run has its folder below that of the sweep",
    "trust-remote-code": "set it for all runs with --trust-remote-code",
}


@dataclass(frozen=True)
class Spec:
    """A sweep as it was asked for.

    Attributes:
        layers: what all runs share, weakest first.
        grid: values of the axes that are crossed, by the word that each sets.
        zipped: values of axes of equal length that advance together.
        exclude: combinations to leave out; one that names some axes leaves out all points with these values.
        seeds: of every point; None: the one seed of the layers.
    """

    layers: Sequence[Layer] = ()
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    zipped: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    exclude: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] | None = None


def spec_of(
    layers: Sequence[Layer],
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    zipped: Mapping[str, Sequence[Any]] | None = None,
    exclude: Sequence[Mapping[str, Any]] = (),
    seeds: Sequence[int] | None = None,
) -> Spec:
    """What recipes and a command line ask for together; the line's values of an axis replace a recipe's.

    Raises:
        UsageError: a recipe's part about the sweep is malformed.
    """
    runs, said = zip(*(written(layer) for layer in layers), strict=True) if layers else ((), ())
    crossed, together = dict(grid or {}), dict(zipped or {})
    for one in reversed(said):
        crossed = {**{w: v for w, v in one.get("grid", {}).items() if w not in together}, **crossed}
        together = {**{w: v for w, v in one.get("zip", {}).items() if w not in crossed}, **together}
    left_out = [*(item for one in said for item in one.get("exclude", ())), *exclude]
    for one in said:
        seeds = seeds if seeds is not None else one.get("seeds")
    return Spec(runs, crossed, together, left_out, seeds)


def expand(spec: Spec) -> tuple[dict[str, list[Any]], tuple[Cell, ...]]:
    """The axes, and the runs in their order: all points with the first seed, then all with the next, so that a sweep
    that is stopped early can compare what it has.

    Raises:
        UsageError: an axis that no run has, without or with repeated values; zipped axes of different lengths; an
            exclusion that matches no axis, or all points.
    """
    axes = {word: list(values) for word, values in (*spec.grid.items(), *spec.zipped.items())}
    _check_axes(spec, axes)
    _check_exclusions(spec, axes)
    points = [point for point in _points(spec) if not any(_matches(point, one) for one in spec.exclude)]
    if not points:
        raise UsageError("every combination is excluded", hint="leave out some of --exclude")
    names = _names(points)
    cells = [Cell(f"{name}seed-{seed}", point, seed) for seed in _seeds(spec) for name, point in names]
    return axes, tuple(cells)


def _points(spec: Spec) -> Iterator[dict[str, Any]]:
    together = [dict(zip(spec.zipped, values, strict=True)) for values in zip(*spec.zipped.values(), strict=True)]
    for crossed in itertools.product(*spec.grid.values()):
        for zipped in together or [{}]:
            yield {**dict(zip(spec.grid, crossed, strict=True)), **zipped}


def _matches(point: Mapping[str, Any], exclusion: Mapping[str, Any]) -> bool:
    return all(_same(point[word], value) for word, value in exclusion.items())


def _same(one: Any, other: Any) -> bool:
    return value_digest(one) == value_digest(other)


def _seeds(spec: Spec) -> tuple[int, ...]:
    if spec.seeds is not None:
        if len(set(spec.seeds)) < len(spec.seeds):
            raise UsageError("a seed is listed twice", hint="runs of one seed are the same run")
        return tuple(spec.seeds)
    stated = [layer.values["seed"] for layer in spec.layers if "seed" in layer.values]
    try:
        return (int(stated[-1]) if stated else 0,)
    except ValueError as error:
        raise UsageError(f"--seed: not a whole number (got {shown(stated[-1])})") from error


def _names(points: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The points with the beginning of their cells' names: what file systems take of their labels, with a digest where
    that is too long or not unique."""
    labels = [Cell("", point, 0).label.replace("=", "-").replace(" ", "_") + "_" if point else "" for point in points]
    plain = [re.sub(r"[^\w.+-]", "-", label).lstrip(".") for label in labels]
    return [
        (name, point)
        if len(name) <= LONGEST_NAME and plain.count(name) == 1
        else (f"{name[:LONGEST_NAME]}{value_digest(point)[:8]}_", point)
        for name, point in zip(plain, points, strict=True)
    ]


def _check_axes(spec: Spec, axes: Mapping[str, list[Any]]) -> None:
    known = [*Settings.by_flag(), *KINDS]
    for word, values in axes.items():
        if word in _FIXED:
            raise UsageError(f"{word} cannot be an axis", hint=_FIXED[word])
        if word not in known and word.partition(".")[0] not in KINDS:
            hint = suggest(word, known) or "an axis is any option of `alignzoo run`, without its dashes"
            raise UsageError(f"unknown axis {shown(word)}", hint=hint)
        if not values:
            raise UsageError(f"the axis {word} has no values", hint="list some, or leave it out")
        twice = next((value for i, value in enumerate(values) if any(_same(value, v) for v in values[:i])), None)
        if twice is not None and word not in spec.zipped:
            raise UsageError(f"the axis {word} has {shown(twice)} twice", hint="name each value once")
    for word in set(spec.grid) & set(spec.zipped):
        raise UsageError(f"{word} is an axis of both --grid and --zip", hint="keep one of them")
    lengths = {word: len(values) for word, values in spec.zipped.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{word} has {count}" for word, count in lengths.items())
        raise UsageError(f"zipped axes need as many values each: {said}", hint="use --grid to cross them")
    together = list(zip(*spec.zipped.values(), strict=True))
    if any(_same(one, other) for i, one in enumerate(together) for other in together[:i]):
        raise UsageError("zipped axes have the same values twice", hint="name each combination once")


def _check_exclusions(spec: Spec, axes: Mapping[str, list[Any]]) -> None:
    for one in spec.exclude:
        for word, value in one.items():
            if word not in axes:
                hint = suggest(word, axes) or f"the axes are {', '.join(axes) or 'none'}"
                raise UsageError(f"--exclude names {shown(word)}, which is no axis of this sweep", hint=hint)
            if not any(_same(value, other) for other in axes[word]):
                labels = [Cell("", {word: other}, 0).label.partition("=")[2] for other in axes[word]]
                sought = Cell("", {word: value}, 0).label.partition("=")[2]
                hint = suggest(sought, labels) or f"it has {', '.join(labels)}"
                raise UsageError(f"--exclude {word}={sought}: the axis has no such value", hint=hint)
