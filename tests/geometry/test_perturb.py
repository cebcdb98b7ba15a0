"""Weights that are moved for a while come back to the bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.geometry.perturb import norm, perturbed, products
from alignzoo.testing.tiny import tiny_model

SHAPES = [(3, 4), (5,), ()]


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def bits(tensors: list[torch.nn.Parameter]) -> list[bytes]:
    return [bytes(t.detach().contiguous().view(-1).view(torch.uint8).tolist()) for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@given(scale=st.floats(-1e30, 1e30))
def test_inside_they_are_moved_and_after_they_are_back_to_the_bit(dtype: torch.dtype, scale: float) -> None:
    weights = parameters(dtype)
    before, values = bits(weights), [weight.detach().clone() for weight in weights]
    deltas = [scale * torch.ones_like(weight) for weight in values]
    with perturbed(weights, deltas):
        assert all(
            torch.equal(weight, value + delta) for weight, value, delta in zip(weights, values, deltas, strict=True)
        )
    assert bits(weights) == before


def test_negative_zero_nan_and_infinity_come_back() -> None:
    strange = torch.nn.Parameter(torch.tensor([-0.0, math.nan, math.inf, 1e-45]))
    before = bits([strange])
    with perturbed([strange], [torch.ones(4)]):
        assert bits([strange]) != before
    assert bits([strange]) == before


def test_they_come_back_after_an_exception() -> None:
    weights = parameters()
    before = bits(weights)
    with pytest.raises(KeyboardInterrupt), perturbed(weights, [torch.ones_like(w) for w in weights]):  # noqa: PT012
        weights[0].data.zero_()
        raise KeyboardInterrupt
    assert bits(weights) == before


@pytest.mark.parametrize("shapes", [[(3, 4), (5,)], [(3, 4), (5,), (1,)], [(4, 3), (5,), ()]])
def test_deltas_of_other_shapes_are_refused_before_anything_moves(shapes: list[tuple[int, ...]]) -> None:
    weights = parameters()
    before = bits(weights)
    with pytest.raises(ValueError, match="deltas' shapes"), perturbed(weights, [torch.ones(s) for s in shapes]):
        pass
    assert bits(weights) == before


def test_gradients_flags_and_storage_are_left_alone() -> None:
    weights = parameters()
    frozen = weights[1].requires_grad_(False)
    weights[0].grad = torch.full(SHAPES[0], 2.0)
    addresses = [weight.data_ptr() for weight in weights]
    with perturbed(weights, [torch.ones_like(w) for w in weights]):
        (weights[0] * weights[2]).sum().backward()
    assert torch.equal(weights[0].grad, torch.full(SHAPES[0], 2.0) + weights[2] + 1), "taken at the moved weights"
    assert not frozen.requires_grad
    assert frozen.grad is None
    assert [weight.data_ptr() for weight in weights] == addresses


def test_tied_weights_move_once() -> None:
    model = tiny_model()
    model.set_output_embeddings(model.get_input_embeddings())
    weights = list(model.parameters())
    before = bits(weights)
    tied = model.get_input_embeddings().weight
    expected = tied.detach() + 1
    with perturbed(weights, [torch.ones_like(w) for w in weights]):
        assert torch.equal(tied, expected)
    assert bits(weights) == before


def test_norm_is_the_length_of_all_tensors_together() -> None:
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0], [12.0]])]) == pytest.approx(13, rel=1e-15)
    assert norm([]) == 0
    assert norm([torch.full((2,), 1e30)]) == pytest.approx(math.sqrt(2) * 1e30), "its squares do not fit into float32"
    assert norm([torch.full((1000,), 0.1, dtype=torch.bfloat16)]) == pytest.approx(
        math.sqrt(1000) * float(torch.tensor(0.1, dtype=torch.bfloat16))
    )


def test_products_on_a_gpu_stay_within_what_cublas_counts() -> None:
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.dot.default:
                self.seen = max(self.seen, args[0].numel())
            return func(*args, **(kwargs or {}))

    weight = torch.empty(1 << 18, 1 << 13, dtype=torch.bfloat16, device="meta")
    with Largest() as largest:
        assert products(weight, weight).shape == (3,)
    assert 0 < largest.seen < 1 << 31
