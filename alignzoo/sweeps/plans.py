"""The plan of each run of a sweep, checked before any of them starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.base.stored import value_digest
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import plan_to_dict
from alignzoo.plan.recipe import Layer, flatten
from alignzoo.plan.resolve import resolve
from alignzoo.plan.started import plain_values
from alignzoo.records.sweep import Cell

ORIGIN = "sweep"
"""The origin of what an axis sets."""
_SHOWN = 8
"""Combinations that a message lists."""


@dataclass(frozen=True)
class Checked:
    """The runs of a sweep.

    Attributes:
        plans: of each point of the grid, with its first seed, by its label.
        cells: those that can run.
        skipped: why the others cannot, by label.
    """

    plans: Mapping[str, Plan]
    cells: tuple[Cell, ...]
    skipped: Mapping[str, str]


def cell_layers(layers: Sequence[Layer], axes: Mapping[str, Sequence[Any]], cell: Cell) -> list[Layer]:
    """What a run is asked: what all share, but options of methods that are on an axis and not in this run; then its
    values of the axes and its seed."""
    shared = [replace(layer, values=_heard(layer.values, axes, cell)) for layer in layers]
    return [*shared, Layer(ORIGIN, {**flatten(cell.values, "the grid"), "seed": cell.seed})]


def _heard(values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], cell: Cell) -> dict[str, Any]:
    heard = {}
    for word, value in values.items():
        kind, *rest = word.split(".")
        elsewhere = (
            len(rest) == 2
            and kind in cell.values
            and rest[0] in {name for one in axes[kind] for name in _names(one)} - set(_names(cell.values[kind]))
        )
        if not elsewhere:
            heard[word] = value
    return heard


def _names(value: Any) -> list[str]:
    """The methods that a value of an axis names."""
    if isinstance(value, list):
        return [name for one in value for name in _names(one)]
    return [str(value.get("name") if isinstance(value, Mapping) else value)]


def check(
    layers: Sequence[Layer],
    axes: Mapping[str, Sequence[Any]],
    cells: Sequence[Cell],
    *,
    skip_incompatible: bool = False,
) -> Checked:
    """Resolve every point of the grid.

    Raises:
        UsageError: some word or value is wrong, or two points are the same run.
        IncompatibleError: some points cannot run, and they are not to be skipped.
    """
    plans: dict[str, Plan] = {}
    problems: dict[str, list[AlignzooError]] = {}
    for cell in cells:
        if cell.label not in plans and cell.label not in problems:
            resolved = resolve(cell_layers(layers, axes, cell))
            if isinstance(resolved, Plan):
                plans[cell.label] = resolved
            else:
                problems[cell.label] = resolved
    _raise_mistakes(problems, len(plans) + len(problems))
    skipped = {label: "; ".join(one.message for one in found) for label, found in problems.items()}
    if skipped and not (skip_incompatible and plans):
        raise IncompatibleError(
            f"{len(skipped)} of {len(plans) + len(skipped)} combinations cannot run:{_listed(skipped)}",
            hint="leave them out with --exclude, or all of them with --skip-incompatible"
            if plans
            else "`alignzoo compat` shows which methods can be combined",
        )
    _refuse_twins(plans)
    return Checked(plans, tuple(cell for cell in cells if cell.label in plans), skipped)


def _raise_mistakes(problems: Mapping[str, Sequence[AlignzooError]], points: int) -> None:
    """Raise what is wrong with words and values: once for all points that have it."""
    where: dict[str, list[str]] = {}
    first: AlignzooError | None = None
    for label, found in problems.items():
        for problem in found:
            if not isinstance(problem, IncompatibleError):
                first = first or problem
                where.setdefault(problem.message, []).append(label)
    if first is None:
        return
    lines = [text if len(labels) == points else f"{labels[0]}: {text}" for text, labels in where.items()]
    raise type(first)("\n  also: ".join(lines[:_SHOWN]), hint=first.hint)


def _listed(reasons: Mapping[str, str]) -> str:
    lines = [f"\n  {label}: {reason}" for label, reason in list(reasons.items())[:_SHOWN]]
    return "".join([*lines, *([f"\n  and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else [])])


def _refuse_twins(plans: Mapping[str, Plan]) -> None:
    found: dict[str, str] = {}
    for label, plan in plans.items():
        other = found.setdefault(value_digest(plain_values(plan_to_dict(plan))), label)
        if other != label:
            raise UsageError(f"{other} and {label} are the same run", hint="leave one of the two values out")


def cell_plan(
    layers: Sequence[Layer],
    axes: Mapping[str, Sequence[Any]],
    cell: Cell,
    folder: Path,
    *,
    keep_models: bool = False,
    trust_remote_code: bool = False,
) -> Plan | list[AlignzooError]:
    """The plan of a run in its folder, or why there is none; without its model unless that is to be kept."""
    own: dict[str, Any] = {"out": str(folder)}
    own |= {} if keep_models else {"save-model": False}
    own |= {"trust-remote-code": True} if trust_remote_code else {}
    return resolve([*cell_layers(layers, axes, cell), Layer(ORIGIN, own)])
