"""Sweeps without worker processes: the real runs one after another in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require
from alignzoo.records.sweep import SweepRecord, read_sweep
from alignzoo.report import Reporter
from alignzoo.runs.execute import execute
from alignzoo.sweeps.folder import recipe_layers, sweep_content, to_do, write_sweep
from alignzoo.sweeps.plans import cell_plan, check
from alignzoo.sweeps.spec import Spec, expand

RAN: list[str] = []
"""The cells that ran, for tests to look at and to clear."""


def sweep(folder: Path, spec: Spec | None) -> SweepRecord:
    """Run or resume a sweep."""
    if spec is None:
        record = read_sweep(folder)
    else:
        axes, cells = expand(spec)
        checked = check(spec.layers, axes, cells)
        folder.mkdir(parents=True, exist_ok=True)
        content = sweep_content(spec.layers, axes, checked.cells, checked.skipped, keep_models=False)
        record = write_sweep(folder, content)
    layers = recipe_layers(record)
    for cell in list(to_do(record)):
        RAN.append(cell.name)
        execute(require(cell_plan(layers, record.axes, cell, record.run_folder(cell))), reporter=Reporter())
    return record


def zipped(
    folder: Path, layers: Sequence[Layer], axes: Mapping[str, Sequence[Any]], seeds: Sequence[int]
) -> SweepRecord:
    """The points of a search."""
    return sweep(folder, Spec(layers, zipped=axes, seeds=seeds))
