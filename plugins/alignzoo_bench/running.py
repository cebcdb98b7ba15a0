"""Runs a bench: sweeps of all methods at their defaults, then a search and a sweep for each tuned point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.errors import AlignzooError
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.records.sweep import SweepRecord
from alignzoo.report import Reporter
from alignzoo.sweeps.search import run_search
from alignzoo.sweeps.search_folder import BEST_FILE, Search
from alignzoo.sweeps.search_ranges import Range, Scale, space
from alignzoo.sweeps.spec import Spec
from alignzoo_bench.folder import DEFAULT, NOISE, Bench, default_sweeps, tuned_folder
from alignzoo_bench.methods import BASE, COMPARED, Entry, world_layer

TUNING_SEED = 1000
"""Of the runs of a search: none of a bench's own seeds."""
LR_FACTOR = 4.0
"""The learning rate of a tuned point is searched from a fourth of the recipe's to four times."""
Sweeps = Callable[[Path, Spec | None], SweepRecord]
"""Runs or resumes a sweep in a folder."""


def run_defaults(folder: Path, bench: Bench, run: Sweeps, *, reporter: Reporter) -> None:
    """Run every method at its card's defaults, resuming sweeps that are there and adding one for new methods."""
    world = world_layer(bench.world, bench.settings)
    for kind in COMPARED:
        wanted = [entry.name for entry in bench.entries if entry.kind == kind]
        there = default_sweeps(folder, kind)
        for sweep in there:
            run(sweep.folder, None)
        names = [name for name in wanted if all(name not in sweep.axes[kind] for sweep in there)]
        if names:
            reporter.note(f"{kind}: {', '.join(names)}")
            layers = [world] if kind == "loss" else [world, Layer("bench", {"loss": BASE})]
            spec = Spec(layers, grid={kind: names, NOISE: list(bench.noise)}, seeds=bench.seeds)
            run(folder / DEFAULT / f"{kind}-{len(there) + 1}", spec)


def run_tuned(
    folder: Path, bench: Bench, entries: Sequence[Entry], run: Sweeps, *, retry: bool = False, reporter: Reporter
) -> list[str]:
    """Search a point for each method and noise rate on validation rows, and run it with the bench's seeds.

    A search that ends at the defaults needs no further runs.

    Returns:
        What could not be tuned, and why.
    """
    failed = []
    for entry in entries:
        for noise in bench.noise:
            where = tuned_folder(folder, entry, noise)
            reporter.note(f"tuning {entry.label} at label noise {noise:g}")
            search = search_of(bench, entry, noise)
            try:
                record = run_search(where / "search", search, _batches(run), retry=retry, reporter=reporter)
            except AlignzooError as error:
                if error.exit_code == 130:
                    raise
                failed.append(f"{entry.label} at label noise {noise:g}: {error.message}")
                continue
            if record.best is not None and record.best.number != 0:
                best = read_recipe(str(where / "search" / BEST_FILE))
                run(where / "runs", Spec([Layer("tuned", best.values)], seeds=bench.seeds))
    return failed


def search_of(bench: Bench, entry: Entry, noise: float) -> Search:
    """The search for a method's tuned point: over its card's ranges and the learning rate."""
    layers = [world_layer(bench.world, bench.settings), Layer("method", {**entry.words, NOISE: noise})]
    plan = require(resolve(layers))
    lr = plan.settings.lr
    ranges: dict[str, Range] = {"lr": Scale(lr / LR_FACTOR, lr * LR_FACTOR, log=True), **space(plan)}
    sampler: Any = bench.sampler
    return Search(layers, (TUNING_SEED,), bench.objective, ranges, bench.trials, sampler)


def _batches(run: Sweeps) -> Callable[..., SweepRecord]:
    def one(
        folder: Path, layers: Sequence[Layer], axes: Mapping[str, Sequence[Any]], seeds: Sequence[int]
    ) -> SweepRecord:
        return run(folder, Spec(layers, zipped=axes, seeds=seeds))

    return one


def number_of_runs(bench: Bench, tuned: Sequence[Entry]) -> dict[str, int]:
    """How many runs there are: at defaults, in searches, and at most at tuned points."""
    points = len(bench.noise)
    seeds = len(bench.seeds)
    return {
        "default": len(bench.entries) * points * seeds,
        "search": len(tuned) * points * bench.trials,
        "tuned": len(tuned) * points * seeds,
    }
