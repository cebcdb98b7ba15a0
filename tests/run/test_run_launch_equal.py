"""``alignzoo run --devices 2`` takes the steps of one process, with whole weights on each rank or shards of them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import alignzoo_forked
from run_helpers import MakeModel, RunFolder, Train

Command = Callable[..., list[str]]
METHODS = list(itertools.product(("dpo", "kto", "simpo"), ("none", "drdpo"), ("plain", "sam", "shapo-token")))
QUICK = ("fsdp2", "dpo", "drdpo", "shapo-token")
"""The one that is a part of every test run."""
CASES = [(parallel, *methods) for methods in METHODS for parallel in ("ddp", "fsdp2")]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, ...], RunFolder]:
    """Runs of one process, by their methods; the two kinds of launch share them."""
    return {}


@pytest.mark.parametrize(
    ("parallel", "loss", "robust", "geometry"),
    [pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow, id="-".join(case)) for case in CASES],
)
def test_two_devices_equal_one(
    parallel: str,
    loss: str,
    robust: str,
    geometry: str,
    alone: dict[tuple[str, ...], RunFolder],
    train: Train,
    command: Command,
    environment: dict[str, str],
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {"model": str(make_model()), "loss": loss, "robust": robust, "geometry": geometry}
    given |= {"max-steps": 10, "micro-batch-size": 2, "optimizer": "adamw", "lr": 1e-4, "weight-decay": 0.1}
    given |= {"eval-pairs": 4} | ({"geometry.interval": 3} if geometry == "shapo-token" else {})
    methods = (loss, robust, geometry)
    if methods not in alone:
        alone[methods] = train(**given)
    one, two = alone[methods], RunFolder(tmp_path / "two")
    words = command(two.path, "--devices", "2", "--parallel", parallel, **given)
    ended = alignzoo_forked(words, cwd=tmp_path, environment={**os.environ, **environment}, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{two.path}\n"  # of the first rank alone
    assert ended.stderr.count("training 10/10") == 1
    recorded = json.loads((two.path / "env.json").read_text())
    assert (recorded["ranks"], recorded["nodes"], recorded["communication"]) == (2, 1, "gloo")
    assert recorded["backend"] == {"ddp": "ddp", "fsdp2": "fsdp"}[parallel]
    assert two.weights.keys() == one.weights.keys()
    furthest = max((two.weights[name] - tensor).abs().max().item() for name, tensor in one.weights.items())
    if record := os.environ.get("ALIGNZOO_RECORD_DIFFERENCES"):
        with Path(record).open("a") as file:
            file.write(f"{'-'.join((parallel, *methods))} {furthest:.2e}\n")
    assert furthest <= TOLERANCE
    assert two.result["tokens"] == one.result["tokens"]
    for here, there in zip(two.timeless(), one.timeless(), strict=True):
        assert here == pytest.approx(there, rel=1e-4, abs=1e-4)
