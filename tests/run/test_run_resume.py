"""A run that was stopped, whatever stopped it, and then resumed is the run that was not stopped."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from held import go, holding, until_asked, until_step
from run_helpers import Az, MakeModel, RunFolder, Start, same, strict_json

from alignzoo.train.checkpoint import step_of, whole_checkpoints

Command = Callable[..., list[str]]
HalfDone = Callable[..., tuple[RunFolder, RunFolder]]
METHODS: dict[str, Any] = {"loss": "dpo", "robust": "drdpo", "geometry": "shapo-token", "geometry.interval": 2}
LONG: dict[str, Any] = {**METHODS, "max-steps": 14, "save-every": 2, "warmup-steps": 3, "micro-batch-size": 2}


@pytest.fixture(autouse=True)
def _tiny(words: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words, "model", str(make_model()))


def _finished(az: Az, words: list[str]) -> RunFolder:
    ended = az(*words)
    assert ended.returncode == 0, ended.stderr
    return RunFolder(Path(ended.stdout.strip()))


def _assert_equal(resumed: RunFolder, whole: RunFolder) -> None:
    assert resumed.timeless() == whole.timeless()
    assert same(resumed.weights, whole.weights)
    own = ("folder", "seconds", "peak_memory")
    one, other = ({k: v for k, v in run.result.items() if k not in own} for run in (resumed, whole))
    assert one == other


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(
    command: Command, az: Az, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _finished(az, command(tmp_path / "whole", **LONG))
    folder = tmp_path / "killed"
    moments = random.Random(0)
    plugin, observe = holding(tmp_path)[:2], holding(tmp_path)[2:]
    words = command(folder, *plugin, *observe, **LONG)
    for step in (moments.randint(3, 5), moments.randint(8, 10)):
        monkeypatch.setenv("HOLD_AT", str(step + 3))  # however late it is killed, it has not ended
        process = start(*words)
        until_step(folder, step, process)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        _, stderr = process.communicate()
        assert process.returncode == -signal.SIGKILL, stderr
        words = ["run", "--resume", str(folder), *plugin]
    monkeypatch.delenv("HOLD_AT")
    newest = whole_checkpoints(folder)[-1]
    _leave_half_written(folder, newest)
    assert whole_checkpoints(folder)[-1] == newest
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    resumed = _finished(az, words)
    _assert_equal(resumed, whole)
    assert resumed.result["tokens"] == sum(resumed.column("tokens")) == resumed.metrics[-1]["total_tokens"]


def _leave_half_written(folder: Path, whole: Path) -> None:
    """What a crash in the middle of saving may leave, and worse: later steps, each with something missing."""
    checkpoints = folder / "checkpoints"
    shutil.copytree(whole, checkpoints / ".step-00000098.partial")
    for step, damaged in ((97, "weights.safetensors"), (98, "optimizer_and_methods.pt"), (99, "state.json")):
        copy = checkpoints / f"step-{step:08d}"
        shutil.copytree(whole, copy)
        content = (copy / damaged).read_bytes()
        (copy / damaged).write_bytes(content[: len(content) // 2])
    shutil.copytree(whole, checkpoints / "step-00000096")
    (checkpoints / "step-00000096" / "weights.safetensors").unlink()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["ctrl-c", "sigterm"]
)
def test_asked_to_stop_it_saves_and_exits_130(
    number: signal.Signals, command: Command, az: Az, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _finished(az, command(tmp_path / "whole", **{**LONG, "save-every": 0}))
    folder, words = tmp_path / "stopped", holding(tmp_path)
    monkeypatch.setenv("HOLD_AT", "3")
    process = start(*command(folder, "--json", *words, **{**LONG, "save-every": 0}))
    until_step(folder, 3, process)
    process.send_signal(number)
    stderr = until_asked(process)
    go(folder)
    stdout, rest = process.communicate(timeout=200)
    stderr += rest
    assert process.returncode == 130, stderr
    stopped = RunFolder(folder)
    assert len(stopped.metrics) == 3
    assert "stopped after step 3 of 14" in stderr
    assert f"alignzoo run --resume {folder}" in stderr
    assert "Traceback" not in stderr
    assert strict_json(stdout)["error"]["exit_code"] == 130
    newest = whole_checkpoints(folder)[-1]
    assert step_of(newest) == 3
    assert not (folder / "model").exists()
    assert not (folder / "result.json").exists()
    _assert_equal(_finished(az, ["run", "--resume", str(folder), *words[:2]]), whole)


def test_killed_before_its_first_checkpoint_it_starts_over(command: Command, az: Az, tmp_path: Path) -> None:
    whole = _finished(az, command(tmp_path / "whole", **METHODS))
    folder = tmp_path / "early"
    folder.mkdir()
    shutil.copy(whole.path / "plan.yaml", folder)  # written first of all
    ended = az("run", "--resume", str(folder))
    assert ended.returncode == 0, ended.stderr
    assert f"warning: {folder} contains no checkpoint; starting from the first step" in ended.stderr
    _assert_equal(RunFolder(folder), whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.path.iterdir()}


def test_resuming_a_finished_run_changes_nothing(command: Command, az: Az, tmp_path: Path) -> None:
    done = _finished(az, command(tmp_path / "done"))
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*")}
    again = az("run", "--resume", str(done.path), "--json")
    assert again.returncode == 0
    assert strict_json(again.stdout) == done.result
    assert "has already finished all 2 steps; nothing to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in done.path.rglob("*")} == before


def test_only_the_newest_checkpoints_are_kept(command: Command, az: Az, tmp_path: Path) -> None:
    run = _finished(az, command(tmp_path / "run", **{"max-steps": 5, "save-every": 1, "keep-checkpoints": 3}))
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004", "step-00000005"]


@pytest.fixture
def half_done(command: Command, az: Az, tmp_path: Path) -> HalfDone:
    """A run of six steps, and the same one as a crash after its first checkpoint leaves it."""

    def make(**methods: Any) -> tuple[RunFolder, RunFolder]:
        words = command(tmp_path / "whole", **methods, **{"max-steps": 6, "save-every": 2, "keep-checkpoints": 9})
        whole, half = _finished(az, words), RunFolder(tmp_path / "half")
        shutil.copytree(whole.path, half.path)
        for name in ("checkpoints/step-00000004", "checkpoints/step-00000006", "model"):
            shutil.rmtree(half.path / name)
        (half.path / "result.json").unlink()
        return whole, half

    return make


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full_while_saving_a_checkpoint(half_done: HalfDone, az: Az) -> None:
    whole, half = half_done(**METHODS)
    weights = (whole.path / "checkpoints" / "step-00000002" / "weights.safetensors").stat().st_size
    # Room for all weights, which come first, and not for the optimizer's state.
    with _files_of_at_most(weights + 4096):
        ended = az("run", "--resume", str(half.path), "--json")
    assert ended.returncode == 1, ended.stderr
    assert f"could not save the checkpoint of step 4 in {half.path / 'checkpoints'}" in ended.stderr
    assert f"free some space and resume from step 2 with: alignzoo run --resume {half.path}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert strict_json(ended.stdout)["error"]["exit_code"] == 1
    assert [path.name for path in (half.path / "checkpoints").iterdir()] == ["step-00000002"]
    _assert_equal(_finished(az, ["run", "--resume", str(half.path)]), whole)


def test_disk_full_while_writing_metrics(half_done: HalfDone, az: Az, start: Start) -> None:
    whole, half = half_done(loss="ipo")
    two_lines = sum(map(len, (half.path / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]))
    process = start(
        "run",
        "--resume",
        str(half.path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (two_lines + 50, two_lines + 50)),
    )
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1, stderr
    assert f"cannot write {half.path}: [Errno 27] File too large" in stderr
    assert f"free some space and resume with: alignzoo run --resume {half.path}" in stderr
    assert "Traceback" not in stderr
    _assert_equal(_finished(az, ["run", "--resume", str(half.path)]), whole)


def test_disk_full_while_saving_the_model(half_done: HalfDone, az: Az) -> None:
    whole, half = half_done(loss="ipo")
    last = Path("checkpoints") / "step-00000006"
    shutil.copytree(whole.path / last, half.path / last)
    with _files_of_at_most(100_000):
        ended = az("run", "--resume", str(half.path))
    assert ended.returncode == 1, ended.stderr
    assert f"could not save the model in {half.path / 'model'}" in ended.stderr
    assert f"free some space and finish with: alignzoo run --resume {half.path}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [path for path in half.path.iterdir() if "model" in path.name]
    _assert_equal(_finished(az, ["run", "--resume", str(half.path)]), whole)
