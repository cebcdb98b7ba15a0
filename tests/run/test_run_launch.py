"""``alignzoo run --devices N``: what is refused before workers start, and how they are stopped, fail and are heard."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Start

from alignzoo.distributed import launch
from alignzoo.distributed.workers import INTERRUPTED, Failure, root_cause

Command = Callable[..., list[str]]
LONG: dict[str, Any] = {"max-steps": 500, "epochs": 900, "eval-pairs": 4, "micro-batch-size": 2}
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
NODES = "--nodes 2 --node-rank 0 --rendezvous"


REFUSED: list[tuple[str, int, str, str]] = [
    ("--devices 0", 2, "--devices 0: expected a number from 1, or auto", "--devices 2"),
    ("--devices 2 --batch-size 7", 2, "--batch-size 7 cannot be divided over 2 ranks", "a multiple of 2"),
    ("--devices 2 --optimizer nope", 2, "--optimizer nope: torch.optim has no", "adamw"),
    ("--devices 2 --parallel fsdp2 --quantize 4bit", 3, "untested on sharded weights", "--parallel ddp"),
    ("--devices 2 --parallel fsdp2 --optimizer rprop", 3, "does not support sharded weights", "adamw"),
    ("--devices 2 --resume nowhere", 1, "nowhere is not an alignzoo run folder", "--out"),
    ("--devices 1 --parallel ddp", 2, "--parallel ddp has no effect on one device", "--devices auto"),
    ("--nodes 2", 2, "--nodes 2 needs --node-rank and --rendezvous", "--node-rank 0 to 1"),
    ("--node-rank 0", 2, "--node-rank without --nodes has no effect", "add --nodes"),
    (f"{NODES} here", 2, "--rendezvous here: expected HOST:PORT", "10.0.0.1:29500"),
    ("--nodes 2 --node-rank 2 --rendezvous a:1", 2, "--node-rank 2: there are 2 nodes", "0 to 1"),
]


@pytest.mark.parametrize(("asked", "code", "message", "hint"), REFUSED, ids=[words for words, *_ in REFUSED])
def test_what_is_wrong_is_said_before_workers_start(
    asked: str, code: int, message: str, hint: str, command: Command, az: Az, tmp_path: Path
) -> None:
    more = asked.split()
    ended = az(*(["run", *more] if "--resume" in more else command(tmp_path / "out", *more)))
    assert ended.returncode == code
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr
    assert hint in ended.stderr
    assert not (tmp_path / "out").exists()


def test_devices_that_are_not_there(command: Command, az: Az, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("alignzoo.cli.launch.device_count", lambda: 2)
    ended = az(*command(tmp_path / "out", "--devices", "4"))
    assert ended.returncode == 2
    assert "--devices 4: this machine has 2 devices" in ended.stderr
    planned = az(*command(tmp_path / "out", "--devices", "4", "--dry-run"))  # for a machine that has them
    assert planned.returncode == 0, planned.stderr


def test_auto_is_one_process_on_a_cpu(command: Command, az: Az, make_model: MakeModel, tmp_path: Path) -> None:
    ended = az(
        *command(
            tmp_path / "out", "--devices", "auto", "--parallel", "fsdp2", model=str(make_model()), **{"eval-pairs": 4}
        )
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "env.json").read_text())["ranks"] == 1
    assert "devices" not in (tmp_path / "out" / "plan.yaml").read_text()  # words of the launch, not of the plan
    assert "there is one device, so the weights are not sharded (--parallel fsdp2)\n" in ended.stderr
    assert "sharded" not in az(*command(tmp_path / "ddp", "--devices", "auto", "--dry-run")).stderr


CONTRADICTIONS: list[tuple[dict[str, str], str, str]] = [
    (TORCHRUN, "--devices 4", "--devices 4: torchrun has started 2 processes on this machine"),
    ({**TORCHRUN, "ACCELERATE_MIXED_PRECISION": "no"}, "--devices 1", "accelerate launch has started 2"),
    (STEP, "--devices 4", "--devices 4: srun has started 2 processes on this machine"),
    (STEP, "--nodes 4", "--nodes 4: srun has started 2"),
    (TORCHRUN, f"{NODES} a:1", "--node-rank is for processes that alignzoo starts, but torchrun has started"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "--devices 2 --parallel ddp", "requests FSDP"),
    ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}, "--seed 1", "through mpirun only"),
]


@pytest.mark.parametrize(("own", "asked", "message"), CONTRADICTIONS)
def test_words_that_contradict_a_launcher_of_the_users_own(
    own: dict[str, str],
    asked: str,
    message: str,
    command: Command,
    az: Az,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    ended = az(*command(tmp_path / "out", *asked.split()))
    assert ended.returncode == 2
    assert message in ended.stderr


def test_words_that_agree_with_it_start_nothing(
    command: Command, az: Az, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    words = ["--devices", "2", "--nodes", "2", "--parallel", "fsdp2", "--dry-run"]
    assert az(*command(tmp_path / "out", *words)).returncode == 0
    refused = az(*command(tmp_path / "out", *words, "--optimizer", "rprop"))
    assert "does not support sharded weights" in refused.stderr


@pytest.mark.parametrize(
    ("own", "name"),
    [({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"), ({"ACCELERATE_USE_FSDP": "true"}, "FSDP 1")],
)
def test_other_ways_to_shard_are_refused_with_ours(
    own: dict[str, str], name: str, command: Command, az: Az, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, value in own.items():
        monkeypatch.setenv(variable, value)
    ended = az(*command(tmp_path / "out"))
    assert ended.returncode == 3
    assert f"runs under {name} are not supported" in ended.stderr
    assert "--parallel fsdp2" in ended.stderr


def test_what_slurm_says_is_what_torchrun_would(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    given = {**STEP, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    with monkeypatch.context() as step:
        for name in (*names, "CUDA_VISIBLE_DEVICES"):
            step.delenv(name, raising=False)
        for name, value in {**given, "SLURM_STEP_NODELIST": "gpu[03-04,9],other"}.items():
            step.setenv(name, value)
        assert (launch.world_size(), launch.node_count(), launch.is_first_rank()) == (4, 2, False)
        for name in names:
            step.setenv(name, "")  # to be restored
            step.delenv(name)
        launch.adopt_slurm()
        assert [os.environ[name] for name in names] == ["3", "4", "1", "2", "gpu03", "20049"]
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)  # a batch script, which is no task of a step
    assert launch.world_size() == 1


def _failure(code: int, when: float, rank: int = 0, **facts: Any) -> Failure:
    said = {"message": "m", "hint": None, "exit_code": code, "kind": "AlignzooError", **facts} if facts else None
    return Failure(rank, code, said, when, "")


def test_the_cause_is_told_from_its_consequences() -> None:
    own = _failure(3, 2.0, kind="IncompatibleError")
    killed, lost = _failure(-9, 1.0), _failure(1, 0.5, kind="InternalError")
    ended, late = _failure(INTERRUPTED, 0.1, kind="Interrupted"), _failure(-9, 40.0)
    saved = _failure(INTERRUPTED, 0.2, kind="Interrupted", hint="resume with: …")
    for failures, cause in (
        ([ended, lost, killed, own], own),
        ([ended, lost, killed], killed),
        ([ended, lost, late], lost),  # the launcher kills what does not end
        ([ended, _failure(-15, 0.0)], ended),
    ):
        assert root_cause(failures, stopped=False) is cause
    assert root_cause([lost, killed, ended, saved], stopped=True) is saved


def _training(process: subprocess.Popen[str], folder: Path) -> None:
    file = folder / "metrics.jsonl"
    while process.poll() is None and (not file.is_file() or file.read_bytes().count(b"\n") < 3):
        time.sleep(0.05)


def _workers(process: subprocess.Popen[str]) -> list[Any]:
    import psutil

    return list(psutil.Process(process.pid).children())


@pytest.mark.slow
def test_ctrl_c_saves_and_other_devices_resume(
    command: Command, start: Start, make_model: MakeModel, az: Az, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(*command(folder, "--devices", "2", model=make_model(), **LONG))
    _training(process, folder)
    workers = _workers(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == INTERRUPTED, stderr
    assert stdout == ""
    assert stderr.count("finishing this step and saving; press Ctrl-C again to stop immediately") == 1
    assert stderr.count("error: ") == 1
    assert "state saved\n" in stderr
    assert f"resume with: alignzoo run --resume {folder} --devices 2\n" in stderr
    assert "Traceback" not in stderr
    assert not any(worker.is_running() for worker in workers)
    done = int(stderr.partition("stopped after step ")[2].partition(" ")[0])
    again = start("run", "--resume", str(folder), "--devices", "2", "--parallel", "fsdp2")
    while again.poll() is None and len(RunFolder(folder).metrics) < done + 2:
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == INTERRUPTED
    assert f"resuming after step {done} of 500" in stderr
    assert f"--resume {folder} --devices 2 --parallel fsdp2\n" in stderr


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(command: Command, start: Start, make_model: MakeModel, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(*command(folder, "--devices", "2", model=make_model(), **LONG))
    _training(process, folder)
    workers = _workers(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.6)  # before that it is the same request
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == INTERRUPTED
    assert f"resume with: alignzoo run --resume {folder} --devices 2\n" in stderr
    assert "Traceback" not in stderr
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_killed(
    rank: int, command: Command, start: Start, make_model: MakeModel, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(*command(folder, "--devices", "2", model=make_model(), **LONG))
    _training(process, folder)
    workers = _workers(process)
    next(worker for worker in workers if worker.environ()["RANK"] == str(rank)).kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"error: rank {rank} was killed by SIGKILL" in stderr
    assert f"resume with: alignzoo run --resume {folder} --devices 2" in stderr
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
def test_workers_do_not_outlive_the_command(
    command: Command, start: Start, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psutil

    folder, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start(*command(folder, "--devices", "2", model=make_model(), **LONG))
    _training(process, folder)
    workers = _workers(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive
    assert not list(temporary.glob("alignzoo-workers-*"))
    assert list((folder / "checkpoints").iterdir())  # they were asked to stop, and saved


@pytest.mark.slow
def test_a_worker_s_error_is_shown_once(command: Command, start: Start, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "p", "chosen": "c"}\n')
    process = start(*command(tmp_path / "run", "--devices", "2", "--json", data=data))
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == json.loads(stdout)["error"]["exit_code"] == 1
    assert json.loads(stdout)["error"]["kind"] == "DataError"
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr
    assert "ChildFailedError" not in stderr
    assert not (tmp_path / "run").exists()


LEAVING = """
import atexit, os, sys, time
from alignzoo.interfaces import GeometryController
from alignzoo.plugin import Card, hookimpl

def left():
    if "LEFT" in os.environ and "RANK" in os.environ:
        with open(os.environ["LEFT"] + os.environ["RANK"], "w") as file:
            file.write(str(sys.modules["torch.distributed"].is_initialized()))

atexit.register(left)

class Failing(GeometryController):
    sharded = True
    def step(self, ctx):
        if os.environ["RANK"] == "1":
            raise RuntimeError("no")
        try:
            return ctx.backward()
        finally:
            time.sleep(0.5)

@hookimpl
def alignzoo_methods():
    return [Card(kind="geometry", name="failing", target="leaving:Failing", summary="s", formula="f", sharded=True)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["devices", "torchrun"])
@pytest.mark.parametrize("geometry", ["plain", "failing"])
def test_ranks_leave_their_group(
    geometry: str,
    own: bool,
    command: Command,
    start: Start,
    on_two_ranks: OnTwoRanks,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Without which NCCL warns at exit; the one that failed does not wait for the other."""
    plugin = tmp_path / "leaving.py"
    plugin.write_text(LEAVING)
    monkeypatch.setenv("LEFT", str(tmp_path / "left"))
    words = command(
        tmp_path / "run", "--plugin", str(plugin), "--parallel", "fsdp2", model=make_model(), geometry=geometry
    )
    if own:
        returncode = on_two_ranks(*words).returncode
    else:
        process = start(*words, "--devices", "2")
        process.communicate(timeout=200)
        returncode = process.returncode
    assert (returncode == 0) == (geometry == "plain")
    assert (tmp_path / "left1").read_text() == "False"
    assert geometry == "failing" or (tmp_path / "left0").read_text() == "False"


@pytest.mark.slow
def test_two_nodes_started_by_hand(command: Command, start: Start, make_model: MakeModel, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    given = {"model": make_model(), "max-steps": 3, "eval-pairs": 4}
    words = command(tmp_path / "run", "--nodes", "2", "--devices", "1", "--rendezvous", address, **given)
    nodes = [start(*words, "--node-rank", rank) for rank in ("1", "0")]
    (quiet, silent), (stdout, stderr) = (node.communicate(timeout=300) for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], stderr + silent
    assert stdout == f"{tmp_path / 'run'}\n"
    assert quiet == ""
    assert "training 3/3" in stderr
    assert "training" not in silent
    environment = json.loads((tmp_path / "run" / "env.json").read_text())
    assert (environment["ranks"], environment["nodes"]) == (2, 2)


@pytest.mark.slow
def test_tasks_of_slurm_are_ranks(command: Command, start: Start, make_model: MakeModel, tmp_path: Path) -> None:
    words = command(tmp_path / "run", "--devices", "2", model=make_model(), **{"max-steps": 3, "eval-pairs": 4})
    variables = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost"}
    variables |= {"SLURM_JOB_ID": str(time.time_ns() % 10**9), "SLURM_STEP_ID": "0"}
    tasks = []
    for rank in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**variables, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}.items():
                patch.setenv(name, value)
            tasks.append(start(*words))
    (stdout, stderr), (quiet, _) = (task.communicate(timeout=300) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], stderr
    assert stdout == f"{tmp_path / 'run'}\n"
    assert quiet == ""
    assert json.loads((tmp_path / "run" / "env.json").read_text())["ranks"] == 2


@pytest.mark.slow
def test_torchrun_shards_with_the_same_word(
    command: Command, on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", "--parallel", "fsdp2", "--devices", "2", model=make_model(), **{"max-steps": 2})
    ended = on_two_ranks(*words)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "run" / "env.json").read_text())["backend"] == "fsdp"
