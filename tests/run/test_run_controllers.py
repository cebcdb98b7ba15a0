"""Every controller trains: the held-out objective falls, under losses and wrappers of each sort."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from run_helpers import Train
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo import list_methods
from alignzoo.plugin import Card
from alignzoo.sandbox import MODEL_PATH

CONTROLLERS = [card.name for card in list_methods("geometry") if isinstance(card, Card)]
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
