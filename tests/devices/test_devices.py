"""Nothing of a run mixes tensors of the host and of its device, and a device that is not the CPU gives its numbers.

There is no GPU in CI; the device here is :mod:`elsewhere`'s. What only CUDA has (Triton, FlexAttention, pinned memory,
streams) it does not show.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import walk
from matrix import Combination, Matrix, names

from alignzoo.contract.loss import LossCard
from alignzoo.plugin.registry import registry

There = Callable[..., Any]
TOLERANCE = 1e-10
"""Of float64, after two steps."""


def combinations() -> list[Combination]:
    """Every method once, beside the plainest of the other kinds."""
    found = []
    for name in names("loss"):
        card: Any = registry().find("loss", name)
        assert isinstance(card, LossCard)
        under = card.options().under() or card.under or {"sum"}
        found.append(Combination(name, "none", "sum" if "sum" in under else min(under), "plain"))
    found += [Combination("dpo", name, "sum", "plain") for name in names("robust")]
    found += [Combination("dpo", "none", name, "plain") for name in names("aggregation") if name != "sum"]
    # tr-dpo moves nothing in two steps unless it is told to, as in a run below.
    geometries = [name for name in names("geometry") if name not in ("plain", "tr-dpo")]
    found += [Combination("dpo", "none", "sum", name) for name in geometries]
    return found


def same(one: walk.Arrays, other: walk.Arrays, within: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=within, err_msg=name)


@pytest.mark.parametrize("combination", combinations(), ids=str)
def test_two_steps_of_every_method(combination: Combination, there: There, matrix: Matrix) -> None:
    same(there(walk.trained, combination), walk.weights_of(matrix, combination), TOLERANCE)


@pytest.mark.parametrize("way", walk.WAYS)
def test_log_probs_and_gradients(way: str, there: There) -> None:
    same(there(walk.gradients, way), walk.gradients(way, "cpu"), 1e-5)


def test_log_probs_and_gradients_under_autocast(there: There) -> None:
    same(there(walk.gradients, "packed", autocast=True), there(walk.gradients, "packed"), 0.5)


def test_activations_come_back_in_another_thread(there: There) -> None:
    same(there(walk.gradients, "packed", offloaded=True), walk.gradients("packed", "cpu"), 1e-5)


def test_masks(there: There) -> None:
    same(there(walk.masks), walk.masks("cpu"), 0)


SHORT: dict[str, Any] = {
    "loss": "dpo", "batch-size": 4, "eval-pairs": 4, "max-steps": 2, "samples": False, "save-every": 1,
    "precision": "fp32", "max-length": 64,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "shapo-token, drdpo": {"geometry": "shapo-token", "robust": "drdpo", "eval-every": 1},
    "sam with averaged weights": {"geometry": [{"name": "sam"}, {"name": "ema"}]},
    "a moving reference": {"geometry": [{"name": "tr-dpo", "interval": 1}]},
    "an adapter": {"lora": {"r": 4}, "geometry": "shapo-token", "activation-checkpointing": True},
    "padded": {"packing": False, "reference-cache": False},
    "bf16": {"precision": "bf16", "tokens-per-micro-batch": 200},
}


@pytest.mark.parametrize("name", RUNS)
def test_whole_runs(name: str, there: There, tmp_path: Path) -> None:
    words = {**SHORT, **RUNS[name]}
    found = there(walk.losses, words, tmp_path / "there")
    expected = walk.losses(words, tmp_path / "here")
    assert found == pytest.approx(expected, abs=0.01 if name == "bf16" else 1e-5)


def test_a_run_that_is_resumed_measured_and_asked(there: There, tmp_path: Path) -> None:
    run, asked = tmp_path / "run", tmp_path / "prompts.jsonl"
    words = {**SHORT, "geometry": "ema", "optimizer": "adamw"}
    losses = there(walk.losses, words, run)
    shutil.rmtree(max((run / "checkpoints").iterdir()))
    (run / "result.json").unlink()
    assert there(walk.command, ["run", "--resume", str(run)]) == 0
    again = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert again == pytest.approx(losses, abs=1e-6)
    asked.write_text('{"prompt": "how are you"}\n{"prompt": "what is it"}\n')
    written = ["--out", str(tmp_path / "answers.jsonl"), "--max-new-tokens", "4"]
    assert there(walk.command, ["generate", str(run), "--prompts", str(asked), *written]) == 0
    assert there(walk.command, ["sharpness", str(run)]) == 0


@pytest.mark.parametrize("mistake", ["sum", "cat", "stack", "gather", "values", "numpy", "generator", "weight"])
def test_what_a_gpu_refuses_is_refused(mistake: str, there: There) -> None:
    assert there(walk.mixed, mistake)
