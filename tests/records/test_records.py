"""Run and sweep folders are read back as data, in any state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignzoo.base.lock import lock, unlock
from alignzoo.base.stored import sealed
from alignzoo.contract.result import RunResult
from alignzoo.errors import AlignzooError, DamagedError, UsageError
from alignzoo.plan.planfile import write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.records import Cell, is_sweep, read_run, read_sweep
from alignzoo.report import Reporter


def _started(folder: Path, **words: Any) -> Path:
    """A run folder with its plan."""
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(require(resolve([Layer("flag", {"loss": "ipo", **words})])), folder)
    return folder


def _finished(folder: Path, **words: Any) -> Path:
    _started(folder, **words)
    RunResult(str(folder), "--loss ipo", "finished", 2, 90, 1.5, {"train": 8}, "w", {}, {"eval/loss": 0.5}).save()
    return folder


def test_a_run_is_read_by_the_words_that_set_it(tmp_path: Path) -> None:
    run = read_run(_started(tmp_path / "run", seed=3, **{"robust": ["drdpo"], "robust.drdpo.beta_prime": 2.0}))
    assert (run.name, run.seed, run.values["robust.drdpo.beta_prime"]) == ("run", 3, 2.0)
    assert run.methods["loss"] == ["ipo"]
    assert run.sentence.startswith("--loss ipo")
    assert not run.finished
    assert (run.data, run.environment, run.evaluation, list(run.metrics())) == ({}, {}, None, [])


def test_a_finished_run_has_its_result(tmp_path: Path) -> None:
    run = read_run(_finished(tmp_path / "run"))
    assert run.finished
    assert run.result is not None
    assert run.result.after == {"eval/loss": 0.5}


def test_the_line_that_a_killed_run_left_half_written_is_left_out(tmp_path: Path) -> None:
    folder = _started(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "lo')
    assert list(read_run(folder).metrics()) == [{"step": 1, "loss": 0.7}]


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        read_run(tmp_path)


def test_an_edited_plan_is_not_read(tmp_path: Path) -> None:
    plan = _started(tmp_path / "run") / "plan.yaml"
    plan.write_text(plan.read_text().replace("name: ipo", "name: dpo"))
    with pytest.raises(AlignzooError):
        read_run(plan.parent)


def _sweep(folder: Path) -> Path:
    """A sweep of five cells, one in each state."""
    cells = [{"name": f"ipo-{seed}", "values": {"loss": "ipo"}, "seed": seed} for seed in range(5)]
    content = {"axes": {"loss": ["ipo"]}, "seeds": [0, 1, 2, 3, 4], "recipe": {}, "cells": cells}
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sealed(content)))
    _finished(folder / "runs" / "ipo-0")
    _started(folder / "runs" / "ipo-1")
    _started(folder / "runs" / "ipo-2")
    (folder / "failures").mkdir()
    failure = sealed({"error": "out of memory", "hint": None, "exit_code": 1})
    (folder / "failures" / "ipo-3.json").write_text(json.dumps(failure))
    return folder


def test_every_cell_of_a_sweep_has_a_state(tmp_path: Path) -> None:
    sweep = read_sweep(_sweep(tmp_path / "sweep"))
    running = sweep.run_folder(sweep.cells[2])
    lock(running, Reporter())
    try:
        states = [sweep.status(cell) for cell in sweep.cells]
    finally:
        unlock(running)
    assert states == ["finished", "stopped", "running", "failed", "waiting"]
    failure = sweep.failure(sweep.cells[3])
    assert failure is not None
    assert (failure.error, failure.exit_code) == ("out of memory", 1)
    assert [(cell.seed, run.methods["loss"]) for cell, run in sweep.finished()] == [(0, ["ipo"])]


def test_a_cell_is_labelled_by_its_axes() -> None:
    values = {"loss": "dpo", "robust": ["drdpo", "cdpo"], "geometry": {"name": "sam", "rho": 0.1}, "lora.r": None}
    assert Cell("c", values, 0).label == "loss=dpo robust=drdpo+cdpo geometry=sam,rho=0.1 lora.r=none"


def test_other_and_damaged_folders_are_no_sweeps(tmp_path: Path) -> None:
    assert not is_sweep(tmp_path)
    with pytest.raises(UsageError, match="no sweep folder"):
        read_sweep(tmp_path)
    path = _sweep(tmp_path / "sweep") / "sweep.yaml"
    path.write_text(path.read_text().replace("ipo-4", "ipo-9"))
    with pytest.raises(DamagedError, match="not what was written"):
        read_sweep(path.parent)
