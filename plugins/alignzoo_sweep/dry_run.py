"""What a sweep would run, what it would cost by the estimate of ``alignzoo plan``, and the disk space it would take."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from alignzoo.cli.console import print_lines, print_table
from alignzoo.errors import AlignzooError
from alignzoo.plan.plan import Plan
from alignzoo.records.sweep import is_sweep, read_sweep
from alignzoo.report import Reporter
from alignzoo.sweeps.launchers.local_launcher import cores, devices
from alignzoo.sweeps.plans import Checked

RECORDS = 100_000
"""Bytes of a run's records beside its metrics; measured on the sandbox: 60 kB."""
PER_STEP = 800
"""Bytes of a line of metrics."""
_COPIES = 4
"""A checkpoint in copies of the trained weights: weights, two moments of Adam, and a reference."""


def dry_run(checked: Checked, folder: Path, *, workers: int | None, keep_models: bool) -> dict[str, Any]:
    """All runs with their cost and disk space, as plain data; times in seconds, space in bytes."""
    costs = _Costs()
    points = {label: costs.of(plan) for label, plan in checked.plans.items()}
    there = read_sweep(folder) if is_sweep(folder) else None
    cells = []
    for cell in checked.cells:
        status = there.status(cell) if there is not None else "waiting"
        cells.append(
            {"name": cell.name, "label": cell.label, "seed": cell.seed, "status": status, **points[cell.label]}
        )
    to_run = [cell for cell in cells if cell["status"] != "finished"]
    side_by_side = min(workers or devices() or cores(), max(1, len(to_run)))
    times = [cell["seconds"] for cell in to_run]
    known = None not in times
    disk = sum(cell["disk"] + (cell["model"] if keep_models else 0) for cell in cells)
    return {
        "folder": str(folder),
        "runs": len(cells),
        "to_run": len(to_run),
        "cells": cells,
        "skipped": dict(checked.skipped),
        "workers": side_by_side,
        "seconds": sum(times) / side_by_side if known else None,
        "disk": disk,
        "disk_while_running": disk + side_by_side * max((cell["checkpoints"] for cell in cells), default=0),
        "unknown": costs.unknown,
    }


class _Costs:
    """Estimates, each model's shapes and each data's lengths being read once."""

    def __init__(self) -> None:
        self.unknown: str | None = None
        self._models: dict[Any, Any] = {}
        self._data: dict[Any, Any] = {}
        self._rate: float | None = None

    def of(self, plan: Plan) -> dict[str, Any]:
        """The cost of one run."""
        try:
            return self._estimated(plan)
        except AlignzooError as error:
            self.unknown = error.message
            nothing = dict.fromkeys(("steps", "passes", "tflop", "seconds"))
            return {**nothing, "disk": RECORDS, "model": 0, "checkpoints": 0}

    def _estimated(self, plan: Plan) -> dict[str, Any]:
        from alignzoo_estimate.compute import work
        from alignzoo_estimate.estimate import Model, Situation
        from alignzoo_estimate.lengths import of_data
        from alignzoo_estimate.shapes import read_config

        from alignzoo.model.positions import fitted
        from alignzoo.model.precision import with_precision

        settings = plan.settings
        if settings.model not in self._models:
            config = read_config(settings.model, trust_remote_code=settings.trust_remote_code)
            self._models[settings.model] = Model(config)
        model = self._models[settings.model]
        plan = fitted(with_precision(plan)[0], model.config, Reporter())
        settings = plan.settings
        lengths = (settings.model, settings.data, settings.data_split, settings.data_format, settings.eval_data)
        key = (*lengths, settings.max_length, settings.max_prompt_length, "mismatched" in plan.needs)
        if key not in self._data:
            self._data[key] = of_data(plan, Reporter())
        data = self._data[key]
        hardware = self._hardware(bf16=settings.precision == "bf16")
        situation = Situation(plan, model, hardware, data)
        flop = work(situation).total
        steps = _steps(plan, data.rows)
        trained = situation.trained * 4.0
        saves = settings.save_every and steps > settings.save_every
        return {
            "steps": steps,
            "passes": situation.passes,
            "tflop": flop * steps / 1e12,
            "seconds": flop * steps / (hardware.rate * hardware.utilisation) if hardware.rate else None,
            "disk": RECORDS + PER_STEP * steps,
            "model": trained + trained * _COPIES * settings.keep_checkpoints,
            "checkpoints": trained * _COPIES * (settings.keep_checkpoints if saves else 1),
        }

    def _hardware(self, *, bf16: bool) -> Any:
        import os

        from alignzoo_estimate.compute import measured_rate
        from alignzoo_estimate.estimate import Hardware

        if devices():
            import torch

            return Hardware(1, True, float(torch.cuda.mem_get_info()[1]), None, "none")
        if self._rate is None:
            self._rate = measured_rate(bf16=bf16, seconds=0.5)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Hardware(1, False, float(memory), self._rate, "none")


def _steps(plan: Plan, rows: int) -> int:
    """Steps of a run, as its session counts them."""
    settings = plan.settings
    epochs = settings.epochs if settings.epochs is not None else (math.inf if settings.max_steps else 1.0)
    passes = max(1, math.floor(epochs * rows / settings.batch_size)) if epochs < math.inf else math.inf
    return int(min(passes, settings.max_steps or math.inf))


def show_dry_run(facts: dict[str, Any]) -> None:
    """Points of the grid with their cost, then the sums."""
    from alignzoo_estimate.show import duration

    seeds = Counter(cell["label"] for cell in facts["cells"])
    first = {cell["label"]: cell for cell in reversed(facts["cells"])}
    rows = []
    for label in seeds:
        cell = first[label]
        time = "unknown" if cell["seconds"] is None else duration(cell["seconds"])
        steps, passes = ("?" if cell[name] is None else f"{cell[name]:g}" for name in ("steps", "passes"))
        rows.append([label, str(seeds[label]), steps, passes, time])
    print_table(["runs", "seeds", "steps", "passes per step", "time each"], rows)
    for label, reason in facts["skipped"].items():
        print_lines(f"skipped: {label}: {reason}")
    done = facts["runs"] - facts["to_run"]
    print_lines("", f"{facts['runs']} runs{f', {done} of them finished' if done else ''}, {facts['workers']} at a time")
    if facts["seconds"] is not None:
        print_lines(f"training: about {duration(facts['seconds'])} (`alignzoo plan`); evaluation and start come on top")
    else:
        print_lines(f"time: unknown ({facts['unknown'] or 'the rate of these devices is not known'})")
    print_lines(f"disk: {_size(facts['disk'])}, at most {_size(facts['disk_while_running'])} while it runs")


def _size(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
