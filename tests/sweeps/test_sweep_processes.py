"""Sweeps as processes: killed, stopped and resumed at any point, they end with the results of one left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Here
from held import go, holding, until, until_step

from alignzoo.records.sweep import SweepRecord, read_sweep
from alignzoo.sweeps.progress import last_step

STEPS = 24
ASKED = "finishing this step and saving"
SMALL = ("--model", "sandbox", "--batch-size", "4", "--eval-pairs", "4", "--probe.share", "0", "--eval-share", "0.2")
GRID = (*SMALL, "--grid", "loss=dpo,simpo,ipo", "--max-steps", str(STEPS), "--save-every", "8")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``alignzoo sweep WORDS``; whatever is left of it is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "alignzoo", "sweep", *words]
        started.append(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _mid_run(folder: Path, index: int) -> bool:
    path = folder / "runs" / read_sweep(folder).cells[index].name / "metrics.jsonl"
    return last_step(path) >= 2


def _worker(folder: Path) -> int:
    """The process that has a cell."""
    [path] = (folder / "runs").glob(".*.lock")
    return int(json.loads(path.read_text())["pid"])


def _results(sweep: SweepRecord) -> list[tuple[str, dict[str, float]]]:
    found = [run.result for _, run in sweep.finished()]
    return [(result.weights, result.after) for result in found if result is not None]


@pytest.mark.slow
def test_killed_stopped_and_resumed_it_ends_as_one_left_alone(
    here: Here, start: Start, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is held in its third step; one that comes to it in its second process is not."""
    alone, folder = tmp_path / "alone", tmp_path / "sweep"
    observe = holding(tmp_path)
    words = (*GRID, "--data", str(pairs), "--workers", "1", *observe)
    assert here(*words, "--out", str(alone)).returncode == 0

    monkeypatch.setenv("HOLD_AT", "3")
    process = start(*words, "--out", str(folder))
    until(lambda: (folder / "sweep.yaml").is_file(), process)
    sweep = read_sweep(folder)
    runs, logs = ([one(cell) for cell in sweep.cells] for one in (sweep.run_folder, sweep.log))
    until_step(runs[0], 3, process)
    os.kill(_worker(folder), signal.SIGKILL)
    go(runs[0])
    until_step(runs[1], 3, process)
    process.send_signal(signal.SIGINT)
    until(lambda: ASKED in logs[1].read_text(), process)
    go(runs[1])
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 130
    assert "loss=dpo seed 0 was killed by signal 9; resuming it" in said
    assert f"resume with: alignzoo sweep --resume {folder} --plugin {observe[1]}" in said
    assert "1 of 3 runs are done" in said
    assert [sweep.status(cell) for cell in sweep.cells] == ["finished", "stopped", "waiting"]

    process = start(*words, "--out", str(folder))
    until_step(runs[2], 3, process)
    worker = _worker(folder)
    process.kill()
    until(lambda: ASKED in logs[2].read_text())
    go(runs[2])
    until(lambda: not Path(f"/proc/{worker}").exists() or sweep.status(sweep.cells[2]) == "stopped")
    assert sweep.status(sweep.cells[2]) == "stopped"  # the worker saved its run and ended

    ended = here("--resume", str(folder), *observe[:2])
    assert ended.returncode == 0, ended.stderr
    assert "3 of 3 runs finished" in ended.stdout
    assert _results(read_sweep(folder)) == _results(read_sweep(alone))
    assert len(_results(read_sweep(folder))) == 3


DEADLY = '''
import os, signal
from alignzoo.contract.loss import LossCard, PreferenceLoss
from alignzoo.plugin import hookimpl

class Deadly(PreferenceLoss):
    """Kills its process."""
    def __call__(self, pairs):
        os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def alignzoo_methods():
    return [LossCard(name="deadly", target=f"{__name__}:Deadly", summary="Kills.", formula="-", api=2)]
'''


@pytest.mark.slow
def test_a_run_that_kills_its_process_is_given_up_and_the_others_run(here: Here, tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    words = (*SMALL, "--data", str(pairs), "--max-steps", "1", "--grid", "loss=deadly,dpo", "--workers", "1")
    ended = here(*words, "--plugin", str(tmp_path / "deadly.py"), "--out", str(tmp_path / "sweep"), "--json")
    assert ended.returncode == 1, ended.stderr
    facts = json.loads(ended.stdout)
    assert [cell["status"] for cell in facts["cells"]] == ["failed", "finished"]
    assert "its process died 2 times (was killed by signal 9)" in facts["cells"][0]["error"]["error"]
    assert f"--plugin {tmp_path / 'deadly.py'}" in facts["retry"]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "options"), [("ray", ()), ("slurm", ("--launcher-option", "cluster=local"))])
def test_other_engines_run_the_same_cells(
    here: Here, tmp_path: Path, pairs: Path, launcher: str, options: tuple[str, ...]
) -> None:
    pytest.importorskip({"slurm": "submitit"}.get(launcher, launcher))
    words = (*SMALL, "--data", str(pairs), "--max-steps", "2", "--grid", "loss=dpo,simpo", "--workers", "1")
    for name, line in (("local", ()), (launcher, ("--launcher", launcher, *options))):
        ended = here(*words, *line, "--out", str(tmp_path / name))
        assert ended.returncode == 0, ended.stderr
    assert _results(read_sweep(tmp_path / launcher)) == _results(read_sweep(tmp_path / "local"))


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "options"), [("ray", ()), ("slurm", ("--launcher-option", "cluster=local"))])
def test_stopping_saves_the_runs_of_other_engines(
    start: Start, tmp_path: Path, pairs: Path, launcher: str, options: tuple[str, ...]
) -> None:
    pytest.importorskip({"slurm": "submitit"}.get(launcher, launcher))
    folder = tmp_path / "sweep"
    words = (
        *SMALL,
        "--grid",
        "loss=dpo,simpo",
        "--data",
        str(pairs),
        "--workers",
        "1",
        "--launcher",
        launcher,
        *options,
        "--out",
        str(folder),
    )
    process = start(*words, "--max-steps", "4000")
    until(lambda: (folder / "sweep.yaml").is_file() and _mid_run(folder, 0), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 130, said
    sweep = read_sweep(folder)
    assert sweep.status(sweep.cells[0]) == "stopped"
    assert list((sweep.run_folder(sweep.cells[0]) / "checkpoints").iterdir())
