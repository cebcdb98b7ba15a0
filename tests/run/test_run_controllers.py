"""Every controller trains: the held-out objective falls, under losses and wrappers of each sort."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from alignzoo_estimate.geometry import added, passes
from alignzoo_sandbox import MODEL_PATH
from heard import Heard
from run_helpers import MakeModel, Train
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from alignzoo import list_methods
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin import Card

CARDS = [card for card in list_methods("geometry") if isinstance(card, Card)]
CONTROLLERS = [card.name for card in CARDS if not getattr(card, "moves_reference", False)]
"""What moves the reference needs one, and more steps than these by default; tests of its own run it."""
SHORT: dict[str, Any] = {"max_steps": 20, "batch_size": 2, "micro_batch_size": 2, "eval_pairs": 4, "lr": 3e-4}


@pytest.fixture(scope="module")
def half(session: Path) -> Path:
    """The sandbox's model without the upper half of its layers: over a hundred runs start from it."""
    folder = session / "models" / "half-sandbox"
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    model.config.num_hidden_layers //= 2
    model.model.layers = model.model.layers[: model.config.num_hidden_layers]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL_PATH).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("robust", [[], ["drdpo"]], ids=["alone", "drdpo"])
@pytest.mark.parametrize("loss", ["dpo", "simpo", "ipo"])
@pytest.mark.parametrize("geometry", CONTROLLERS)
def test_every_controller_trains_to_a_lower_objective(
    geometry: str, loss: str, robust: list[str], train: Train, half: Path
) -> None:
    run = train(model=str(half), loss=loss, robust=robust, geometry=geometry, **SHORT)
    lines, before, after = run.metrics, run.result["before"], run.result["after"]
    assert len(lines) == 20
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]) for line in lines)
    assert after["eval/loss"] < before["eval/loss"]
    assert after["eval/rewards/margins"] > before["eval/rewards/margins"]


def test_a_perturbation_that_is_rounded_away_is_told_once(train: Train, make_model: MakeModel, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model("llama"), dtype=torch.bfloat16)
    shutil.copytree(make_model("llama"), tmp_path / "bf16")
    model.save_pretrained(tmp_path / "bf16")
    words: dict[str, Any] = {"model": str(tmp_path / "bf16"), "geometry": "sam", "lr": 1e-9}
    heard = Heard()
    rounded = train(**words, precision="bf16", report=heard).column("geometry/survival")
    assert all(share < 0.9 for share in rounded)
    assert all(share == pytest.approx(1, abs=1e-3) for share in train(**words).column("geometry/survival"))
    [warning] = [text for text in heard.warnings if "perturbation" in text]
    assert warning.startswith(f"step 1: {rounded[0]:.0%} of the perturbation reaches the forward")
    assert "--precision fp32" in warning


@pytest.mark.parametrize(
    ("geometry", "more"),
    [
        ({"geometry": "random"}, 1),
        ({"geometry": "random", "geometry.interval": 2}, 0.5),
        ({"geometry": "msam"}, 1),
        ({"geometry": "esam"}, 2),
        ({"geometry": "sam", "geometry.interval": 2}, 0.5),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_the_plan_counts_the_passes_of_a_run(
    geometry: dict[str, Any], more: float, train: Train, make_model: MakeModel
) -> None:
    """Forward passes of the last four of six steps, each of two micro-batches, beside those of plain steps."""

    def passes_of(steps: int, **given: Any) -> int:
        calls: list[int] = []
        note = register_module_forward_pre_hook(
            lambda module, _: calls.append(1) if isinstance(module, LlamaModel) else None
        )
        with note:
            train(model=str(make_model()), loss="simpo", max_steps=steps, **given)
        return len(calls)

    passes_of(2)  # the first run of a process also tries ways to compute
    once = passes_of(6) - passes_of(2)
    assert once == 4 * 2
    found = (passes_of(6, **geometry) - passes_of(2, **geometry)) / once
    plan = require(resolve([Layer("flag", {"model": "a", "data": "b", "loss": "simpo", **geometry})]))
    assert found == 1 + more == passes(plan) + added(plan).forwards
