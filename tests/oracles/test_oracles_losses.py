"""Losses and wrappers against what their authors' functions gave (README.md here says how it was recorded)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded import oracle

from alignzoo import PairBatch, load_method

close = torch.testing.assert_close


@pytest.mark.parametrize(("name", "more"), [("dpo", {}), ("ipo", {"logps": "sum"}), ("simpo", {})])
def test_losses_equal_the_authors(name: str, more: dict[str, Any]) -> None:
    """Values and rewards, to the last bits of float64."""
    recorded = oracle(name)
    pairs = PairBatch(**recorded["pairs"])
    for case in recorded["cases"]:
        loss = load_method("loss", name, **case["options"], **more)
        close(loss(pairs), case["losses"], rtol=1e-12, atol=0)
        chosen, rejected = loss.rewards(pairs)
        close(chosen, case["chosen_rewards"], rtol=1e-12, atol=0)
        close(rejected, case["rejected_rewards"], rtol=1e-12, atol=0)


def test_drdpo_equals_the_authors() -> None:
    """The value over a batch, and its gradient by every log-prob."""
    recorded = oracle("drdpo")
    for case in recorded["cases"]:
        given = PairBatch(**recorded["pairs"])
        leaves = [given.chosen_logps.clone().requires_grad_(), given.rejected_logps.clone().requires_grad_()]
        losses = load_method("loss", "dpo", beta=case["beta"])(
            replace(given, chosen_logps=leaves[0], rejected_logps=leaves[1])
        )
        wrapper = load_method("robust", "drdpo", **case["options"])
        assert wrapper.objective(losses).item() == pytest.approx(case["value"], rel=1e-12)
        gradients = torch.autograd.grad(losses, leaves, wrapper.weights(losses))
        close(gradients[0], case["gradient_chosen"], rtol=1e-11, atol=0)
        close(gradients[1], case["gradient_rejected"], rtol=1e-11, atol=0)
