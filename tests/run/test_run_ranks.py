"""Two ranks take the steps that one rank takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder

from alignzoo.distributed.launch import planned
from alignzoo.distributed.process import launched

Command = Callable[..., list[str]]
METHODS: dict[str, Any] = {"loss": "dpo", "robust": "drdpo", "geometry": "shapo-token", "geometry.interval": 2}


@pytest.mark.slow
def test_two_ranks_equal_one(
    command: Command, az: Az, on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    given = {**METHODS, "model": make_model(), "max-steps": 4, "micro-batch-size": 2, "lr": 1e-3}
    given |= {"optimizer": "sgd", "eval-every": 2, "save-every": 2, "label-noise": 0.1}
    ended = az(*command(tmp_path / "one", **given))
    assert ended.returncode == 0, ended.stderr
    both = on_two_ranks(*command(tmp_path / "two", **given))
    assert both.returncode == 0, both.stderr
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert both.stdout == f"{two.path}\n"  # of rank 0 alone
    assert both.stderr.count("training 4/4") == 1
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here.keys() == there.keys()
        assert here == pytest.approx(there, rel=1e-5, abs=1e-5)
    assert two.metrics[1]["geometry/radius"] == pytest.approx(0.05)
    for name, tensor in one.weights.items():
        assert torch.allclose(two.weights[name], tensor, rtol=1e-5, atol=1e-5)
    assert two.result["tokens"] == one.result["tokens"]
    assert two.result["after"] == pytest.approx(one.result["after"], rel=1e-5, abs=1e-5)
    assert (two.path / "label_noise.jsonl").read_text() == (one.path / "label_noise.jsonl").read_text()
    (two.path / "result.json").unlink()
    shutil.rmtree(two.path / "checkpoints" / "step-00000004")
    resumed = on_two_ranks("run", "--resume", str(two.path))
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 2 of 4" in resumed.stderr
    assert two.timeless()[-1] == pytest.approx(one.timeless()[-1], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_a_batch_that_the_ranks_cannot_share(
    command: Command, on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    ended = on_two_ranks(*command(tmp_path / "out", model=make_model(), **{"batch-size": 7}))
    assert ended.returncode != 0
    assert "--batch-size 7 cannot be divided over 2 ranks" in ended.stderr
    assert "use a multiple of 2" in ended.stderr
    assert "exitcode  : 2" in ended.stderr  # what the launcher saw of the rank
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_ranks_wait_longer_for_the_first_one_than_nccl_does(sharded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(accelerate, "Accelerator", lambda **words: given.update(words))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # as if it were CUDA
    with planned(2, sharded=sharded):
        launched()
    found = given["kwargs_handlers"][0].to_kwargs()
    assert found.pop("timeout") > timedelta(minutes=10)
    assert found == ({"backend": "cuda:nccl,cpu:gloo"} if sharded else {})  # shards may be in host memory
    given.clear()
    launched()
    assert "kwargs_handlers" not in given
