"""A step does not wait for the device: nothing on the host reads what a GPU is still computing.

Without a GPU, what would make the host wait is counted by operation and by the method that reads a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
import torch
from steps import objective
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo import load_method
from alignzoo.logprobs.forward import use_packing
from alignzoo.report import Reporter
from alignzoo.step.metrics import reward_metrics, weight_metrics
from alignzoo.step.setup import SetupContext
from alignzoo.testing.steps import context
from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model, with_adapter

aten = torch.ops.aten
READ = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive")
"""Operations whose result is on the host, or whose result's size is."""


class Waits(TorchDispatchMode):
    """Names of what made the host wait, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        unsized = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        masked = (name.startswith("index") and "put" in name) or name == "index"
        if name in READ or unsized or (masked and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.found.append(name)
        return func(*args, **kwargs)


@contextmanager
def waits() -> Iterator[list[str]]:
    """Inside, the list gets all that would make the host wait for a device, copies to it from plain memory included."""
    with pytest.MonkeyPatch.context() as patch, Waits() as counting:

        def noted(name: str, function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
            @wraps(function)
            def called(*given: Any, **named: Any) -> Any:
                if when(*given, **named):
                    counting.found.append(name)
                return function(*given, **named)

            return called

        for name in ("tolist", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, noted(name, getattr(torch.Tensor, name), lambda *_: True))
        patch.setattr(torch, "tensor", noted("tensor", torch.tensor, lambda *_, **named: "device" in named))
        yield counting.found


GEOMETRIES: dict[str, Any] = {
    "plain": {},
    "sam": {},
    "shapo-token": {"interval": 1, "select": "random"},
    "shapo-token, between": {"interval": 9, "select": "random"},
}


def step_of(
    geometry: str, *, packed: bool = True, lora: bool = False, robust: bool = False, device: str = "cpu"
) -> Callable[[], Any]:
    """Called, it takes a step of two micro-batches, as the loop does up to the metrics of its methods."""
    model = tiny_model(dtype=torch.float32).to(device)
    if packed:
        use_packing(model)
    model = with_adapter(model) if lora else model
    model.train()
    controller = load_method("geometry", geometry.split(",")[0], **GEOMETRIES[geometry])
    controller.setup(SetupContext(model, 0, Reporter(), lambda given: None))
    goal = objective("dpo", *(["drdpo"] if robust else []), coupled=robust)
    rows = pair_rows(6, seed=3)
    batches = [batch_of(rows[:3]).to(device), batch_of(rows[3:]).to(device)]
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)

    def step() -> Any:
        loss = controller.step(context(model, batches, goal))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return goal, loss

    return step


@pytest.mark.parametrize(
    ("geometry", "variant", "expected"),
    [
        ("plain", {}, []),
        ("plain", {"lora": True}, []),
        ("plain", {"robust": True}, []),
        ("shapo-token, between", {}, []),
        # Norms and values that the next pass depends on, and figures that are logged.
        ("sam", {}, [*["_local_scalar_dense"] * 3, "tolist"]),
        ("shapo-token", {}, [*["_local_scalar_dense"] * 3, *["tolist"] * 2]),
        # transformers looks whether a padding mask masks anything, twice in each of four passes.
        ("plain", {"packed": False}, ["_local_scalar_dense"] * 8),
    ],
)
def test_how_often_a_step_waits(geometry: str, variant: dict[str, bool], expected: list[str]) -> None:
    step = step_of(geometry, **variant)
    step()  # makes what is made once
    with waits() as found:
        step()
    assert sorted(found) == expected


def test_the_metrics_of_a_step_wait_once_for_all_figures() -> None:
    goal, loss = step_of("plain")()
    with waits() as found:
        assert reward_metrics(goal.preference, loss.responses)
        weight_metrics(goal, loss.responses)
        goal.metrics(loss.responses)
    assert found == ["tolist"]


@pytest.mark.parametrize(
    "read", [lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: x.cpu()]
)
def test_what_is_counted_can_be_seen(read: Callable[[torch.Tensor], Any]) -> None:
    with waits() as found:
        read(torch.ones(3))
    assert found


@pytest.mark.gpu
@pytest.mark.parametrize("geometry", ["plain", "shapo-token, between"])
def test_on_a_gpu_nothing_waits(geometry: str) -> None:
    step = step_of(geometry, device="cuda")
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        goal, loss = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert reward_metrics(goal.preference, loss.responses)
