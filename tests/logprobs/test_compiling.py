"""Compiled layers: the numbers of the layers as they are written, with few compilations."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from alignzoo.geometry.projections import find_projections
from alignzoo.geometry.side_branch import SideBranches
from alignzoo.logprobs import compiling
from alignzoo.logprobs.compiling import compile_layers
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps
from alignzoo.model.modes import checkpoint_in_eval_mode, disable_dropout
from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model, with_adapter

LENGTHS = (2, 3, 4, 5, 6, 7)
"""Pairs of a row."""


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    compiling._compiled.cache_clear()
    yield
    torch._dynamo.reset()


def model_of(variant: str) -> Any:
    model: Any = tiny_model(dtype=torch.float32)
    use_packing(model)
    if "lora" in variant:
        model = with_adapter(model)
    disable_dropout(model)
    if "checkpointed" in variant:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        checkpoint_in_eval_mode(model)
    return model.train()


def gradients(model: Any, pairs: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logps = packed_logps(model, batch_of(pair_rows(pairs, seed=pairs))).logps
    (logps[::2] - logps[1::2]).sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"logps": logps.detach(), **found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "backend"),
    [
        ("full", "aot_eager"),
        ("checkpointed", "aot_eager"),
        ("lora", "aot_eager"),
        ("lora checkpointed", "aot_eager"),
        ("full", "inductor"),
    ],
)
def test_layers_compile_once_for_all_lengths_and_give_the_same_numbers(variant: str, backend: str) -> None:
    model, plain = model_of(variant), model_of(variant)
    names = [name for name, _ in model.named_parameters()]
    compile_layers(model, backend=backend)
    assert [name for name, _ in model.named_parameters()] == names
    graphs = []
    for pairs in LENGTHS:
        found, expected = gradients(model, pairs), gradients(plain, pairs)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=f"{name}, {pairs} pairs")
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] <= graphs[1] <= 16
    assert graphs[1:] == graphs[1:2] * (len(LENGTHS) - 1), "a new length of row is no reason to compile"
    again = copy.deepcopy(model)
    assert torch.equal(gradients(again, 3)["logps"], gradients(plain, 3)["logps"]), "a copy is not compiled"


@pytest.mark.slow
def test_side_branches_are_not_overlooked() -> None:
    results = []
    for compiled in (False, True):
        model = model_of("full")
        projections = find_projections(model, "down_proj")
        branches = SideBranches(projections, [torch.arange(3)] * len(projections))
        if compiled:
            compile_layers(model, backend="aot_eager")
            gradients(model, 2)
        with branches.attached():
            packed_logps(model, batch_of(pair_rows(2, seed=2))).logps.sum().backward()
            results.append([delta.grad for delta in branches.deltas])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert one.any()
        torch.testing.assert_close(other, one)
