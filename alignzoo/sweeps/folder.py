"""The folder of a sweep: what it was asked, which of its runs are to do, why some failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignzoo.base.files import local_path, write_json, write_text
from alignzoo.base.lock import lock, lock_path, unlock
from alignzoo.base.safe_yaml import MOST_BYTES, read_yaml
from alignzoo.base.stored import sealed, value_digest
from alignzoo.errors import UsageError
from alignzoo.plan.planfile import PATHS
from alignzoo.plan.recipe import Layer
from alignzoo.plugin.registry import registry
from alignzoo.records.sweep import FAILURES_FOLDER, LOGS_FOLDER, RUNS_FOLDER, SWEEP_FILE, Cell, SweepRecord, read_sweep
from alignzoo.report import Reporter
from alignzoo.version import __version__

_TRUST = "trust-remote-code"


def sweep_content(
    layers: Sequence[Layer],
    axes: Mapping[str, Sequence[Any]],
    cells: Sequence[Cell],
    skipped: Mapping[str, str],
    *,
    keep_models: bool,
) -> dict[str, Any]:
    """What ``sweep.yaml`` says; trust in code is not written down: a folder cannot grant it."""
    recipe: dict[str, dict[str, Any]] = {}
    for layer in layers:
        values = {word: _anchored(word, value) for word, value in layer.values.items() if word not in ("out", _TRUST)}
        recipe.setdefault(layer.origin, {}).update(values)
    return {
        "alignzoo": __version__,
        "axes": {word: list(values) for word, values in axes.items()},
        "seeds": list(dict.fromkeys(cell.seed for cell in cells)),
        "recipe": recipe,
        "keep_models": keep_models,
        "skipped": dict(skipped),
        "cells": [{"name": cell.name, "values": dict(cell.values), "seed": cell.seed} for cell in cells],
    }


def _anchored(word: str, value: Any) -> Any:
    """A file or folder by its whole path, so that the sweep can be resumed from anywhere."""
    if word not in PATHS or not isinstance(value, str):
        return value
    kind = PATHS[word]
    named = kind is not None and registry().named_extension(kind, value) is not None
    return str(local_path(value).resolve()) if not named and local_path(value).exists() else value


def recipe_layers(sweep: SweepRecord) -> list[Layer]:
    """What all runs share, as layers."""
    return [Layer(origin, dict(values)) for origin, values in sweep.recipe.items()]


class _Plain(yaml.SafeDumper):
    """Equal lists are written out, not as references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_sweep(folder: Path, content: Mapping[str, Any]) -> SweepRecord:
    """Start a sweep in a folder, or find the one that is there.

    Raises:
        UsageError: the folder has another sweep, or something else.
    """
    path = folder / SWEEP_FILE
    if path.is_file():
        found = read_sweep(folder)
        changes = differences(read_yaml(path), content)
        if changes:
            raise UsageError(
                f"{folder} has another sweep: {'; '.join(changes)}",
                hint="choose another --out; `alignzoo compare` takes several sweeps, so that one of more seeds or "
                "methods only needs the new ones",
            )
        return found
    text = yaml.dump(sealed(content), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)
    if len(text.encode()) > MOST_BYTES:
        raise UsageError(
            f"{len(content['cells'])} runs are too many for one sweep", hint="divide it over several, such as by seed"
        )
    if any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UsageError(f"--out {folder} exists and is not empty", hint="choose another folder")
    for name in (RUNS_FOLDER, FAILURES_FOLDER, LOGS_FOLDER):
        (folder / name).mkdir()
    write_text(path, text)
    return read_sweep(folder)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a sweep was asked, and is asked now, in words; empty if that is the same."""
    said = []
    for what in ("recipe", "axes"):
        before, after = (_words(one[what], flat=what == "recipe") for one in (then, now))
        said += [
            f"{word} was {_shown(before, word)} and is {_shown(after, word)}"
            for word in dict.fromkeys([*before, *after])
            if value_digest(before.get(word)) != value_digest(after.get(word))
        ]
    for what, name in (("seeds", "seeds"), ("keep_models", "--keep-models")):
        if then.get(what) != now[what]:
            said.append(f"{name} was {then.get(what)} and is {now[what]}")
    if not said and then["cells"] != now["cells"]:
        names = [{cell["name"] for cell in one["cells"]} for one in (then, now)]
        less, more = sorted(names[0] - names[1]), sorted(names[1] - names[0])
        said += [f"{len(less)} runs less ({less[0]}, …)"] * bool(less)
        said += [f"{len(more)} runs more ({more[0]}, …)"] * bool(more)
        said += ["another order of runs"] * (not said)
    return said


def _words(values: Mapping[str, Any], *, flat: bool) -> dict[str, Any]:
    return {word: one for layer in values.values() for word, one in layer.items()} if flat else dict(values)


def _shown(values: Mapping[str, Any], word: str) -> str:
    return str(values[word]) if word in values else "not set"


def write_failure(sweep: SweepRecord, cell: Cell, error: str, hint: str | None, exit_code: int) -> None:
    """Note why a run failed."""
    facts = sealed({"error": error, "hint": hint, "exit_code": exit_code})
    write_json(sweep.folder / FAILURES_FOLDER / f"{cell.name}.json", facts)


def forget_failures(sweep: SweepRecord) -> list[Cell]:
    """Let failed runs be tried again; returns them."""
    failed = [cell for cell in sweep.cells if sweep.status(cell) == "failed"]
    for cell in failed:
        (sweep.folder / FAILURES_FOLDER / f"{cell.name}.json").unlink()
    return failed


def to_do(sweep: SweepRecord) -> Iterator[Cell]:
    """The runs that nobody is at work on, in order."""
    return (cell for cell in sweep.cells if sweep.status(cell) in ("waiting", "stopped"))


def claim(sweep: SweepRecord, cell: Cell) -> bool:
    """Take a run for this process; False if another one has it, or had it and died: see :func:`claims_of_the_dead`."""
    runs = sweep.folder / RUNS_FOLDER
    if lock_path(runs, cell.name).exists():
        return False
    try:
        lock(runs, Reporter(), cell.name)
    except (UsageError, FileExistsError):
        return False
    if sweep.status(cell) == "finished" or sweep.failure(cell) is not None:  # since it was looked at
        release(sweep, cell)
        return False
    return True


def release(sweep: SweepRecord, cell: Cell) -> None:
    """Give a run back."""
    unlock(sweep.folder / RUNS_FOLDER, cell.name)


def claims_of_the_dead(sweep: SweepRecord) -> list[Cell]:
    """Release the runs whose process of this machine has ended without doing so, such as by SIGKILL; returns them."""
    runs, found = sweep.folder / RUNS_FOLDER, []
    for cell in sweep.cells:
        if lock_path(runs, cell.name).exists() and sweep.status(cell) != "running":
            with contextlib.suppress(UsageError, OSError):
                lock(runs, Reporter(), cell.name)
                unlock(runs, cell.name)
                found.append(cell)
    return found
