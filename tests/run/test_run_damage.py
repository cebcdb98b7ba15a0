"""A run folder that was damaged is resumed from what is whole in it, and says what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_helpers import Az, MakeModel, RunFolder, same

Command = Callable[..., list[str]]
METHODS: dict[str, Any] = {"loss": "dpo", "robust": "drdpo", "geometry": "shapo-token", "geometry.interval": 2}
SIX: dict[str, Any] = {**METHODS, "max-steps": 6, "save-every": 2, "keep-checkpoints": 9}


@pytest.fixture
def finished(command: Command, az: Az, make_model: MakeModel, tmp_path: Path) -> RunFolder:
    ended = az(*command(tmp_path / "whole", model=make_model(), **SIX))
    assert ended.returncode == 0, ended.stderr
    return RunFolder(tmp_path / "whole")


def flip(file: Path, *, of: bytes | None = None) -> None:
    """Change one bit in the middle of a file, or of the first occurrence of something in it."""
    content = bytearray(file.read_bytes())
    place = len(content) // 2 if of is None else content.index(of)
    content[place] ^= 1
    file.write_bytes(content)


def test_a_damaged_run_ends_as_it_would_have_and_a_changed_plan_is_refused(
    finished: RunFolder, az: Az, tmp_path: Path
) -> None:
    damaged = RunFolder(tmp_path / "damaged")
    shutil.copytree(finished.path, damaged.path)
    checkpoints = damaged.path / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000006")
    flip(checkpoints / "step-00000004" / "weights.safetensors")
    flip(damaged.path / "result.json", of=b"after")
    flip(damaged.path / "evaluation.json", of=b"before")
    lines = (damaged.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (damaged.path / "metrics.jsonl").write_text("".join([lines[0], "null\n", *lines[2:]]))

    plan = (damaged.path / "plan.yaml").read_text()
    (damaged.path / "plan.yaml").write_text(plan.replace("value: 6\n", "value: 3\n"))
    refused = az("run", "--resume", str(damaged.path))
    assert refused.returncode == 1
    assert "was edited after the run started: max-steps was 6 and is 3" in refused.stderr
    assert f"alignzoo run --recipe {damaged.path} --max-steps 3" in refused.stderr
    (damaged.path / "plan.yaml").write_text(plan)

    ended = az("run", "--resume", str(damaged.path))
    assert ended.returncode == 0, ended.stderr
    said = " ".join(ended.stderr.split())
    assert f"{damaged.path / 'result.json'} is damaged" in said
    assert f"{checkpoints / 'step-00000004'} is damaged: the content of weights.safetensors" in said
    assert "resuming after step 2 of 6" in said
    assert f"{damaged.path / 'evaluation.json'} is damaged" in said
    assert "the figures before training are lost" in said
    assert "has no figures for step 2 (damaged lines: 1)" in said
    assert same(damaged.weights, finished.weights)
    assert damaged.result["after"] == finished.result["after"]
    assert damaged.timeless() == [line for line in finished.timeless() if line["step"] != 2]
