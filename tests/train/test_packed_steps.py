"""Optimizer steps packed and padded: the same losses and gradients under every geometry."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from steps import objective

from alignzoo import load_method
from alignzoo.logprobs.forward import use_packing
from alignzoo.report import Reporter
from alignzoo.step.setup import SetupContext
from alignzoo.testing.steps import context, gradients
from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model, with_adapter

ROWS = pair_rows(5, seed=3)


@pytest.mark.parametrize("variant", ["full", "lora", "checkpointed", "lora checkpointed"])
@pytest.mark.parametrize(
    ("geometry", "options"),
    [("plain", {}), ("shapo-token", {"interval": 1, "select": "random"}), ("sam", {"interval": 1})],
)
def test_a_step_packed_is_the_step_padded(variant: str, geometry: str, options: dict[str, Any]) -> None:
    found = []
    for packed in (False, True):
        model = tiny_model()
        if packed:
            use_packing(model)
        if "checkpointed" in variant:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if "lora" in variant:
            model = with_adapter(model)
        model.train()
        controller = load_method("geometry", geometry, **options)
        controller.setup(SetupContext(model, 0, Reporter(), lambda given: None))
        step = context(model, [batch_of(ROWS[:3]), batch_of(ROWS[3:])], objective("dpo", "drdpo", coupled=True))
        loss = controller.step(step)
        found.append((loss.value, gradients(model)))
    (value, expected), (packed_value, gradient) = found
    torch.testing.assert_close(packed_value, value)
    assert gradient.keys() == expected.keys()
    largest = max(float(values.abs().max()) for values in expected.values())
    for name, values in gradient.items():
        assert float((values - expected[name]).abs().max()) <= 1e-5 * largest, name


def test_fifty_steps_packed_and_padded_have_the_same_losses() -> None:
    losses = []
    for packed in (False, True):
        model = tiny_model(dtype=torch.float32)
        if packed:
            use_packing(model)
        reference = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        controller, goal, line = load_method("geometry", "plain"), objective("dpo"), []
        for step in range(50):
            batches = [batch_of(pair_rows(4, seed=step % 7))]
            line.append(float(controller.step(context(model, batches, goal, reference=reference, step=step)).value))
            optimizer.step()
            optimizer.zero_grad()
        losses.append(line)
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
