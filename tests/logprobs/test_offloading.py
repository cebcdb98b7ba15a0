"""Activations that leave the device between forward and backward: the same gradients, and only activations leave."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest
import torch
from families import mixed_batch

from alignzoo.errors import UsageError
from alignzoo.logprobs import offloading
from alignzoo.logprobs.forward import use_packing
from alignzoo.logprobs.logps import packed_logps, padded_logps
from alignzoo.logprobs.offloading import Offloading
from alignzoo.model.load import load_policy
from alignzoo.model.modes import checkpoint_in_eval_mode, disable_dropout
from alignzoo.model.source import ModelSource
from alignzoo.plan.settings import Settings
from alignzoo.testing.tiny import tiny_model, with_adapter


@pytest.fixture(autouse=True)
def moved(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Copies that were made for the host; of tensors of any size, and fetched a few bytes ahead."""
    found: list[torch.Tensor] = []
    original = offloading._Copies.to_host

    def to_host(self: Any, tensor: torch.Tensor) -> torch.Tensor:
        found.append(original(self, tensor))
        return found[-1]

    monkeypatch.setattr(offloading._Copies, "to_host", to_host)
    monkeypatch.setattr(offloading, "AHEAD", 10_000)
    return found


def pass_of(variant: str, offloaded: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = tiny_model(dtype=torch.float32)
    disable_dropout(model)
    if "padded" not in variant:
        use_packing(model)
    if "lora" in variant:
        model = with_adapter(model)
    if "checkpointed" in variant:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        checkpoint_in_eval_mode(model)
    model.train()
    forward = padded_logps if "padded" in variant else packed_logps
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in variant):
        if offloaded:
            with Offloading(model, smallest=0):
                logps = forward(model, mixed_batch()).logps
        else:
            logps = forward(model, mixed_batch()).logps
    factors = torch.linspace(-1, 1, len(logps))
    (logps * factors).sum().backward()
    return logps, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("variant", ["packed", "padded", "lora", "checkpointed", "lora checkpointed", "bf16"])
def test_gradients_are_exactly_the_same(variant: str, moved: list[torch.Tensor]) -> None:
    logps, gradients = pass_of(variant, True)
    assert len(moved) > 4
    expected, theirs = pass_of(variant, False)
    assert torch.equal(logps, expected)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, theirs[name]), name


@pytest.mark.parametrize("variant", ["packed", "bf16"])
def test_weights_stay_and_nothing_moves_twice(variant: str, moved: list[torch.Tensor]) -> None:
    pass_of(variant, True)
    shapes = {tuple(weight.shape) for weight in tiny_model().parameters()}
    assert not [copy.shape for copy in moved if tuple(copy.shape) in shapes | {shape[::-1] for shape in shapes}]
    large = [copy for copy in moved if copy.numel() > 1000 and variant == "packed"]  # autocast itself makes copies
    assert not any(torch.equal(one, other) for i, one in enumerate(large) for other in large[:i] if same(one, other))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def test_with_recomputed_activations_only_inputs_of_layers_move(moved: list[torch.Tensor]) -> None:
    pass_of("packed", True)
    every = sum(copy.numel() for copy in moved)
    moved.clear()
    pass_of("checkpointed", True)
    assert sum(copy.numel() for copy in moved) < every / 3


def test_small_tensors_stay_and_the_graph_frees_what_moved(moved: list[torch.Tensor]) -> None:
    weight = torch.randn(4, 4, requires_grad=True)
    inputs = torch.randn(500, 4)
    with Offloading(torch.nn.Linear(4, 4, bias=False), smallest=4000):
        small, large = (inputs[:10] @ weight).exp(), (inputs @ weight).exp()
    assert [copy.shape for copy in moved] == [(500, 4)] * 2
    freed = ref(moved[1])
    moved.clear()
    total = small.sum() + large.sum()
    first = torch.autograd.grad(total, weight, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, weight)[0]), "a second backward pass fetches again"
    del small, large, total
    gc.collect()
    assert freed() is None


def test_a_tensor_that_changes_in_place_after_it_was_saved_is_kept_as_it_was() -> None:
    weight = torch.randn(50, requires_grad=True)
    with Offloading(torch.nn.Module(), smallest=0):
        base = torch.ones(50)
        first = (weight * base).sum()
        base.mul_(3)
        second = (weight * base).sum()
    assert torch.equal(torch.autograd.grad(first + second, weight)[0], torch.full((50,), 4.0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_before_weights_are_loaded() -> None:
    with pytest.raises(UsageError, match="--activation-offloading has no effect here: there is no GPU"):
        load_policy(ModelSource("nowhere"), Settings(activation_offloading=True))


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointed", [False, True])
def test_on_a_gpu_gradients_are_exactly_the_same_and_memory_is_less(
    checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offloading, "AHEAD", 1 << 24)
    monkeypatch.setattr(offloading, "IN_FLIGHT", 1 << 24)
    torch.manual_seed(0)
    width = 512
    layers = torch.nn.Sequential(
        *(torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.GELU()) for _ in range(24))
    ).cuda()
    inputs = torch.randn(16384, width, device="cuda")

    def run() -> torch.Tensor:
        found = inputs
        for layer in layers:
            found = (
                torch.utils.checkpoint.checkpoint(layer, found, use_reentrant=False) if checkpointed else layer(found)
            )
        return found

    results = []
    for offloaded in (False, True):
        layers.zero_grad()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        if offloaded:
            with Offloading(layers):
                found = run()
        else:
            found = run()
        held = torch.cuda.memory_allocated()
        found.square().mean().backward()
        torch.cuda.synchronize()
        results.append((held, [weight.grad.clone() for weight in layers.parameters() if weight.grad is not None]))
    (before, expected), (after, gradients) = results
    assert after < 0.6 * before
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.equal(ours, theirs)
