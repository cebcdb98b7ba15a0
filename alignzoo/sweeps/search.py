"""Random and Optuna search over options: every trial is a point of a sweep, scored on rows that no result reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from alignzoo.comparison.figures import facts
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.plan import Plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plan.settings import Settings
from alignzoo.records.sweep import SweepRecord
from alignzoo.report import Reporter
from alignzoo.sweeps.search_folder import TRIALS_FOLDER, Search, SearchRecord, Trial, begin, write_search
from alignzoo.sweeps.search_points import Point, sampler_of

VALIDATION_ROWS = 512
"""Held-out rows of a trial, unless ``--eval-pairs`` says otherwise."""
RunSweep = Callable[[Path, Sequence[Layer], Mapping[str, Sequence[Any]], Sequence[int]], SweepRecord]
"""Runs every point of a batch (layers, and axes that advance together) with every seed, in a sweep folder."""


def run_search(folder: Path, search: Search, run: RunSweep, *, retry: bool = False, reporter: Reporter) -> SearchRecord:
    """Run a search in a new folder, or continue the one that is there.

    Args:
        retry: whether trials with failed runs are tried again.

    Raises:
        UsageError: the folder has another search, the direction of a figure is unknown, or nothing is to be searched.
        AlignzooError: no run of a batch has the objective's figures, or its sweep cannot start.
    """
    if not search.ranges:
        raise UsageError("there is nothing to search", hint="name ranges: --range lr=1e-5:1e-3")
    signs = dict(map(direction, search.objective))
    layers = trial_layers(search.layers)
    defaults = {word: value_in(require(resolve(layers)), word) for word in search.ranges}
    record = begin(folder, search, retry=retry)
    sampler = sampler_of(
        search.sampler, search.ranges, seed=search.seed, first=defaults, folder=folder, known=len(record.trials)
    )
    for trial in record.trials:
        if trial.state != "waiting":
            sampler.tell(trial.number, trial.score)
    while True:
        waiting = [trial for trial in record.trials if trial.state == "waiting"]
        known = len(record.trials)
        if not waiting and known < search.trials:
            size = search.trials - known if search.sampler == "random" else min(search.batch, search.trials - known)
            points = sampler.ask(known, size)
            waiting = [Trial(known + at, f"{known:04d}", point) for at, point in enumerate(points)]
            record = write_search(replace(record, trials=(*record.trials, *waiting)), search)
        if not waiting:
            return record
        batch = waiting[0].batch
        for trial in _scored([one for one in record.trials if one.batch == batch], folder, layers, search, run, signs):
            sampler.tell(trial.number, trial.score)
            trials = [trial if one.number == trial.number else one for one in record.trials]
            record = replace(record, trials=tuple(trials))
            outcome = "a run failed" if trial.score is None else f"score {trial.score:.4g}"
            reporter.note(f"trial {trial.number + 1} of {search.trials}: {trial.label}: {outcome}")
        write_search(record, search)


def _scored(
    trials: Sequence[Trial],
    folder: Path,
    layers: Sequence[Layer],
    search: Search,
    run: RunSweep,
    signs: Mapping[str, int],
) -> list[Trial]:
    """The trials of a batch after its runs."""
    points: list[Point] = []
    for trial in trials:
        if trial.values not in points:
            points.append(dict(trial.values))
    axes = {word: [point[word] for point in points] for word in search.ranges}
    sweep = run(folder / TRIALS_FOLDER / trials[0].batch, layers, axes, search.seeds)
    finished = {cell.name: dict(found.result.after) for cell, found in sweep.finished() if found.result is not None}
    _check_figures(finished, signs, sweep)
    return [_outcome(trial, sweep, finished, signs) for trial in trials]


def _outcome(
    trial: Trial, sweep: SweepRecord, finished: Mapping[str, Mapping[str, float]], signs: Mapping[str, int]
) -> Trial:
    cells = [cell for cell in sweep.cells if dict(cell.values) == dict(trial.values)]
    if not cells or any(cell.name not in finished for cell in cells):
        return replace(trial, state="failed", figures={}, score=None)
    figures = {name: fmean(finished[cell.name][name] for cell in cells) for name in signs}
    score = fmean(signs[name] * value for name, value in figures.items())
    return replace(trial, state="scored", figures=figures, score=score)


def _check_figures(finished: Mapping[str, Mapping[str, float]], signs: Mapping[str, int], sweep: SweepRecord) -> None:
    if not finished:
        reasons = [failure for failure in map(sweep.failure, sweep.cells) if failure is not None]
        why = f": {reasons[0].error}" if reasons else ""
        raise AlignzooError(f"no run of {sweep.folder} has finished{why}", hint=reasons[0].hint if reasons else None)
    has = next(iter(finished.values()))
    missing = [name for name in signs if name not in has]
    if missing:
        raise UsageError(
            f"the runs have no figure {missing[0]!r} on validation rows", hint=f"they have: {', '.join(sorted(has))}"
        )


def direction(objective: str) -> tuple[str, int]:
    """The name of a figure, and 1 if more of it is better, -1 if less is.

    Raises:
        UsageError: neither the name nor a prefix ``min:`` or ``max:`` says.
    """
    prefix, colon, name = objective.partition(":")
    if colon and prefix in ("min", "max"):
        return name, 1 if prefix == "max" else -1
    better = facts(objective).better
    if better is None:
        raise UsageError(
            f"--objective {objective}: which way is better?", hint=f"write min:{objective} or max:{objective}"
        )
    return objective, 1 if better == "higher" else -1


def trial_layers(layers: Sequence[Layer]) -> list[Layer]:
    """What trials share: the given words on validation rows, without suites, whose figures are reported."""
    words = {word for layer in layers for word in layer.values}
    own: dict[str, Any] = {"validation": True, **({} if "eval-pairs" in words else {"eval-pairs": VALIDATION_ROWS})}
    left_out = ("out", "seed", "validation")
    kept = [
        replace(
            layer,
            values={
                word: value
                for word, value in layer.values.items()
                if word not in left_out and not word.startswith("eval-suite")
            },
        )
        for layer in layers
    ]
    return [*kept, Layer("search", own)]


def value_in(plan: Plan, word: str) -> Any:
    """The value of an option or setting in a plan.

    Raises:
        UsageError: the plan has no such word.
    """
    kind, *rest = word.split(".")
    if kind not in KINDS:
        fields = Settings.by_flag()
        if word in fields:
            return getattr(plan.settings, fields[word])
    for method in plan.of(kind):
        named = len(rest) == 1 or (len(rest) == 2 and rest[0] == method.card.name)
        if named and rest[-1] in method.card.options.model_fields:
            return getattr(method.options, rest[-1])
    raise UsageError(
        f"--range {word}: no such option in this recipe", hint="name an option of its methods, or a setting"
    )
