"""Centralized gradients are what the paper says, on the weights that are meant."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignzoo_example.gradient_centralization import (
    GradientCentralization,
    GradientCentralizationOptions,
    centralize_,
    centralized_weights,
)


class Conv1D(torch.nn.Module):
    """As GPT-2's: the weight is ``(in, out)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(inputs, outputs))


class Model(torch.nn.Module):
    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.linear = torch.nn.Linear(4, 3)
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)
        self.transposed = Conv1D(3, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


class Context:
    """A step's context whose gradient is given."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.engine, self.figures = SimpleNamespace(model=model), dict[str, float]()

    def backward(self) -> str:
        torch.manual_seed(1)
        for weight in self.engine.model.parameters():
            if weight.requires_grad:
                weight.grad = torch.randn_like(weight) + 1
        return "the step's loss"

    def log(self, name: str, value: float) -> None:
        self.figures[name] = value


def step(model: torch.nn.Module, layers: str) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What the step returned and logged, and the gradients without and with centralization, by name."""
    ctx = Context(model)
    ctx.backward()
    plain = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    returned = GradientCentralization(GradientCentralizationOptions(layers=layers)).step(ctx)  # type: ignore[arg-type]
    assert returned == "the step's loss"
    return ctx.figures, plain, {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def test_it_is_the_papers_projection() -> None:
    """Φ(G) = P·G with P = I − eeᵀ, e the unit vector of ones; the paper writes one output per column."""
    gradient = torch.randn(5, 8, dtype=torch.float64)
    unit = torch.ones(8, dtype=torch.float64) / math.sqrt(8)
    projection = torch.eye(8, dtype=torch.float64) - torch.outer(unit, unit)
    expected = (projection @ gradient.T).T
    removed = float((gradient - expected).norm())
    assert centralize_(gradient) == pytest.approx(removed)
    torch.testing.assert_close(gradient, expected)


def test_it_is_the_gradient_of_a_centralized_weight() -> None:
    """Centralizing the gradient is training a layer whose weight is W − mean of its rows."""
    weight = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(10, 6, dtype=torch.float64)

    def loss(matrix: torch.Tensor) -> torch.Tensor:
        return (inputs @ matrix.T).tanh().square().sum()

    centralized = weight - weight.mean(1, keepdim=True)
    [expected] = torch.autograd.grad(loss(centralized), weight)
    point = centralized.detach().requires_grad_(True)
    [gradient] = torch.autograd.grad(loss(point), point)
    centralize_(gradient)
    torch.testing.assert_close(gradient, expected)


def test_it_is_idempotent_and_never_longer() -> None:
    gradient = torch.randn(4, 3, 2, dtype=torch.float64)
    length = float(gradient.norm())
    centralize_(gradient)
    assert float(gradient.norm()) <= length
    once = gradient.clone()
    assert centralize_(gradient) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, once)


def test_half_precision_rows_are_centred_as_far_as_it_can_say() -> None:
    gradient = (torch.randn(4, 512) + 3).to(torch.bfloat16)
    centralize_(gradient)
    assert gradient.dtype == torch.bfloat16
    assert float(gradient.float().mean(1).abs().max()) < 2**-9


@pytest.mark.parametrize("tied", [False, True])
def test_linear_layers_are_centralized_and_embeddings_are_not(tied: bool) -> None:
    figures, plain, found = step(Model(tied=tied), "linear")
    changed = {name for name in found if not torch.equal(found[name], plain[name])}
    assert changed == {"linear.weight", "transposed.weight"} | (set() if tied else {"head.weight"})
    torch.testing.assert_close(found["linear.weight"].mean(1), torch.zeros(3))
    torch.testing.assert_close(found["transposed.weight"].mean(0), torch.zeros(4))
    removed = sum(float((plain[name] - found[name]).square().sum()) for name in changed)
    assert figures["removed_norm"] == pytest.approx(math.sqrt(removed), rel=1e-5)


def test_all_takes_every_trainable_weight_of_two_dimensions_once() -> None:
    model = Model(tied=True)
    _, plain, found = step(model, "all")
    assert {name for name in found if not torch.equal(found[name], plain[name])} == {
        "embedding.weight",
        "linear.weight",
        "transposed.weight",
    }
    meant = [weight for weight, _ in centralized_weights(model, "all")]
    assert len({id(weight) for weight in meant}) == len(meant) == 3
