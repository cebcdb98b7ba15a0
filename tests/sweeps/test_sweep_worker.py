"""A worker runs cells until none is left; a cell that fails is noted and can be tried again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from alignzoo.base.lock import lock, unlock
from alignzoo.plan.recipe import Layer
from alignzoo.records.sweep import SweepRecord, read_sweep
from alignzoo.report import Reporter
from alignzoo.sweeps.folder import claims_of_the_dead, forget_failures, sweep_content, write_sweep
from alignzoo.sweeps.spec import Spec, expand
from alignzoo.sweeps.worker import STOPPED, main

SMALL = {"model": "sandbox", "max-steps": 1, "batch-size": 4, "eval-pairs": 4, "probe.share": 0, "eval-share": 0.2}


def _sweep(folder: Path, grid: dict[str, Any], **words: Any) -> SweepRecord:
    layers = [Layer("flag", {**SMALL, **words})]
    axes, cells = expand(Spec(layers, grid))
    folder.mkdir()
    return write_sweep(folder, sweep_content(layers, axes, cells, {}, keep_models=False))


def _statuses(sweep: SweepRecord) -> list[str]:
    return [sweep.status(cell) for cell in sweep.cells]


def test_a_failed_cell_is_noted_and_the_others_run(tmp_path: Path, pairs: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n')
    sweep = _sweep(tmp_path / "sweep", {"data": [str(broken), str(pairs)]})
    assert main([str(sweep.folder)]) == 0
    assert _statuses(sweep) == ["failed", "finished"]
    failure = sweep.failure(sweep.cells[0])
    assert failure is not None
    assert "no known preference layout" in failure.error
    assert failure.exit_code == 1
    assert f"error: {failure.error}" in sweep.log(sweep.cells[0]).read_text()
    assert "pairs" in sweep.log(sweep.cells[1]).read_text()
    run = sweep.run_folder(sweep.cells[1])
    assert not (run / "model").exists()
    assert not (run / "checkpoints").exists()
    before = (run / "result.json").stat().st_mtime_ns

    broken.write_text(pairs.read_text())
    assert main([str(sweep.folder)]) == 0
    assert _statuses(sweep) == ["failed", "finished"]
    assert forget_failures(sweep) == [sweep.cells[0]]
    assert main([str(sweep.folder)]) == 0
    assert _statuses(sweep) == ["finished", "finished"]
    assert (run / "result.json").stat().st_mtime_ns == before
    results = [json.loads((sweep.run_folder(cell) / "result.json").read_text()) for cell in sweep.cells]
    assert results[0]["weights"] == results[1]["weights"]


def test_a_stop_that_a_library_takes_for_its_own_error_still_stops(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_given: Any, **_words: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt as error:
            raise ImportError("cannot load module") from error

    sweep = _sweep(tmp_path / "sweep", {"loss": ["dpo", "ipo"]}, data=str(pairs))
    monkeypatch.setattr("alignzoo.runs.execute.execute", stopped)
    assert main([str(sweep.folder)]) == STOPPED
    assert "failed" not in _statuses(sweep)


def test_a_cell_that_another_process_has_is_left_to_it(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", {"loss": ["dpo"]})
    runs = sweep.folder / "runs"
    lock(runs, Reporter(), sweep.cells[0].name)
    assert _statuses(sweep) == ["running"]
    assert main([str(sweep.folder)]) == 0
    assert not sweep.run_folder(sweep.cells[0]).exists()
    assert claims_of_the_dead(sweep) == []  # its process lives
    unlock(runs, sweep.cells[0].name)


def test_a_cell_whose_process_died_is_free_again(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", {"loss": ["dpo"]})
    [cell] = sweep.cells
    lock(sweep.folder / "runs", Reporter(), cell.name)
    [path] = (sweep.folder / "runs").glob(".*.lock")
    facts = json.loads(path.read_text())
    host, _, _ = facts["owner"].split(".")
    path.write_text(json.dumps({**facts, "owner": f"{host}.999999999.0-0"}))
    assert main([str(sweep.folder)]) == 0  # it is the supervisor's to count how often that happens
    assert _statuses(sweep) == ["waiting"]
    assert claims_of_the_dead(sweep) == [cell]
    assert list((sweep.folder / "runs").iterdir()) == []


def test_a_sweep_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", {"robust": [[], ["drdpo"]], "lr": [1e-5, 2]})
    assert read_sweep(sweep.folder) == sweep
    assert sweep.recipe == {"flag": SMALL}
    assert sweep.axes == {"robust": [[], ["drdpo"]], "lr": [1e-5, 2]}


@pytest.mark.parametrize("word", ["data", "model"])
def test_paths_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: Path, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = _sweep(tmp_path / "sweep", {"loss": ["dpo"]}, **{word: pairs.name})
    assert sweep.recipe["flag"][word] == str(pairs)
