"""Two ranks that share the weights (FSDP2) take the steps of one process, and leave the same run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder

Command = Callable[..., list[str]]
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SIZES: dict[str, Any] = {
    "max-steps": 4, "micro-batch-size": 2, "lr": 1e-3, "optimizer": "adamw", "eval-every": 2, "save-every": 2,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "full": {"loss": "dpo", "robust": "drdpo", "geometry": "shapo-token", "geometry.interval": 2},
    "lora": {"loss": "dpo", "geometry": "sam", "lora.r": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_sharded_ranks_equal_one_process(
    kind: str, command: Command, az: Az, on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {**RUNS[kind], **SIZES, "model": make_model()}
    ended = az(*command(tmp_path / "one", **given))
    assert ended.returncode == 0, ended.stderr
    both = on_two_ranks(*command(tmp_path / "two", **given), **FSDP2)
    assert both.returncode == 0, both.stderr
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    _equal(two, one)
    assert (two.path / "data.json").read_text() == (one.path / "data.json").read_text()
    assert json.loads((two.path / "env.json").read_text())["backend"] == "fsdp"
    # Each rank has written its rows: they go on where the ranks stopped, on other ranks or on a single process.
    weights = two.weights
    (two.path / "result.json").unlink()
    shutil.rmtree(two.path / "checkpoints" / "step-00000004")
    words = ("run", "--resume", str(two.path))
    resumed = az(*words) if kind == "full" else on_two_ranks(*words, **FSDP2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 2 of 4" in resumed.stderr
    _equal(two, one)
    assert kind == "full" or all(torch.equal(two.weights[name], tensor) for name, tensor in weights.items())


def _equal(two: RunFolder, one: RunFolder) -> None:
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here.keys() == there.keys()
        assert here == pytest.approx(there, rel=1e-4, abs=1e-4)
    assert two.weights.keys() == one.weights.keys()
    for name, tensor in one.weights.items():
        assert torch.allclose(two.weights[name], tensor, rtol=1e-4, atol=1e-4), name
    assert two.result["after"] == pytest.approx(one.result["after"], rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_a_sharded_model_generates_answers(command: Command, on_two_ranks: OnTwoRanks, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": None, "model": None, "probe.share": None, "epochs": None, "max-steps": 1}
    given |= {"loss": "simpo", "geometry": "ema", "eval-pairs": 8, "robust": "none"}
    ended = on_two_ranks(*command(tmp_path / "two", **given), **FSDP2)
    assert ended.returncode == 0, ended.stderr
    result = RunFolder(tmp_path / "two").result
    assert result["before"]["sandbox/asr/test"] == 1  # what the shipped model does, on any ranks
    assert 0 < result["before"]["sandbox/broken/ood-wrappers"] < 0.1
    assert result["after"].keys() == result["before"].keys()


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "runs under FSDP 1 are not supported"),
        ({"ACCELERATE_USE_FSDP": "true"}, "runs under FSDP 1 are not supported"),
        ({**FSDP2, "WORLD_SIZE": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "this launch requests parameter offloading"),
        ({**FSDP2, "WORLD_SIZE": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "requests activation checkpointing"),
    ],
)
def test_launches_that_are_not_there_are_refused(
    launch: dict[str, str],
    message: str,
    command: Command,
    az: Az,
    monkeypatch: pytest.MonkeyPatch,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    ended = az(*command(tmp_path / "out", model=make_model()))
    assert ended.returncode == 3
    assert message in ended.stderr
    assert not (tmp_path / "out").exists()


def test_offloading_what_is_not_sharded_is_refused(command: Command, az: Az, tmp_path: Path) -> None:
    ended = az(*command(tmp_path / "out", offload="weights"))
    assert ended.returncode == 2
    assert "--offload weights needs sharded weights (FSDP2), and this launch does not shard them" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_controller_that_does_not_say_it_can_is_refused(
    command: Command, az: Az, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from alignzoo.interfaces import GeometryController\n"
        "from alignzoo.plugin import Card, hookimpl\n\n\n"
        "class Mine(GeometryController):\n"
        "    def step(self, ctx):\n"
        "        return ctx.backward()\n\n\n"
        "@hookimpl\n"
        "def alignzoo_methods():\n"
        "    return [Card(kind='geometry', name='mine', target='mine:Mine', summary='s', formula='f')]\n"
    )
    for name, value in {**FSDP2, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    ended = az(*command(tmp_path / "out", "--plugin", str(file), geometry="mine"))
    assert ended.returncode == 3
    assert "geometry 'mine' does not support sharded weights" in ended.stderr
