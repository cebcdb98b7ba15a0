"""Every controller trains: the objective falls, under losses and wrappers of each sort."""

from __future__ import annotations

import math
from typing import Any

import pytest
from run_helpers import Train

from alignzoo import list_methods
from alignzoo.plugin import Card

CONTROLLERS = [card.name for card in list_methods("geometry") if isinstance(card, Card)]
COMBINATIONS: list[tuple[str, list[str]]] = [("dpo", []), ("simpo", ["drdpo"])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "robust"), COMBINATIONS, ids=lambda value: value if isinstance(value, str) else "-".join(value) or "alone"
)
@pytest.mark.parametrize("geometry", CONTROLLERS)
def test_every_controller_trains_to_a_lower_objective(
    geometry: str, loss: str, robust: list[str], train: Train
) -> None:
    often: dict[str, Any] = {"geometry.interval": 2} if geometry in ("shapo-token", "sam") else {}
    run = train(loss=loss, robust=robust, geometry=geometry, max_steps=12, lr=1e-4, eval_every=12, **often)
    lines, before, after = run.metrics, run.result["before"], run.result["after"]
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]) for line in lines)
    assert after["eval/loss"] < before["eval/loss"]
    assert after["eval/rewards/margins"] > before["eval/rewards/margins"]
