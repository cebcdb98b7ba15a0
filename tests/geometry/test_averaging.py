"""Averages of the weights: their values, and runs that evaluate and save them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alignzoo import load_method
from alignzoo.errors import UsageError


def drifting(companion: Any, steps: int) -> tuple[torch.nn.Linear, list[torch.Tensor]]:
    """A model whose weights move by seeded noise after each step, and its weights after each."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    companion.setup(SimpleNamespace(model=model, steps=None))
    seen = []
    for step in range(steps):
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight)
        seen.append(torch.cat([weight.detach().flatten().clone() for weight in model.parameters()]))
        companion.after_step(SimpleNamespace(step=step, log=lambda name, value: None))
    return model, seen


def evaluated(companion: Any, model: torch.nn.Module) -> torch.Tensor:
    with companion.for_evaluation():
        return torch.cat([weight.detach().flatten().clone() for weight in model.parameters()])


def replayed(seen: list[torch.Tensor], **kind: Any) -> torch.Tensor:
    """What torch's own averaging makes of the same weights."""
    module = torch.nn.Module()
    module.register_parameter("w", torch.nn.Parameter(seen[0].clone()))
    averaged = AveragedModel(module, **kind)
    for value in seen:
        with torch.no_grad():
            module.w.copy_(value)  # type: ignore[operator]
        averaged.update_parameters(module)
    return averaged.module.w.detach()  # type: ignore[union-attr, return-value]


def test_swa_equals_torch() -> None:
    swa = load_method("geometry", "swa", start=2, interval=3)
    model, seen = drifting(swa, 12)
    torch.testing.assert_close(evaluated(swa, model), replayed([seen[4], seen[7], seen[10]]))


def test_ema_equals_torch() -> None:
    ema = load_method("geometry", "ema", decay=0.8, warm_up=False, interval=2)
    model, seen = drifting(ema, 10)
    expected = replayed(seen[1::2], multi_avg_fn=get_ema_multi_avg_fn(0.8))
    torch.testing.assert_close(evaluated(ema, model), expected)


def test_the_warm_up_forgets_the_first_weights_sooner() -> None:
    slow, quick = (load_method("geometry", "ema", decay=0.999, warm_up=warm_up) for warm_up in (False, True))
    model, seen = drifting(slow, 8)
    other, _ = drifting(quick, 8)
    first = seen[0]
    assert (evaluated(quick, other) - first).norm() > 5 * (evaluated(slow, model) - first).norm()


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_before_it_begins_the_weights_are_evaluated_as_they_are(name: str) -> None:
    companion = load_method("geometry", name, start=100)
    model, seen = drifting(companion, 4)
    assert torch.equal(evaluated(companion, model), seen[-1])


def test_a_schedule_that_never_begins_is_refused() -> None:
    for name in ("ema", "swa"):
        companion = load_method("geometry", name, start=15, interval=6)
        with pytest.raises(UsageError, match="would never be updated: its first update is after step 21"):
            companion.setup(SimpleNamespace(model=torch.nn.Linear(2, 2), steps=20))
