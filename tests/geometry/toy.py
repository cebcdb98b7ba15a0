"""A step on a function of a few tensors: what a controller does there can be written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from golden import golden_responses

from alignzoo.geometry.perturb import perturbed
from alignzoo.interfaces import StepLoss

Function = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


class Toy:
    """What controllers use of a step context, with the objective ``function`` of the given weights."""

    def __init__(self, weights: Mapping[str, torch.Tensor], function: Function) -> None:
        self.weights = {name: torch.nn.Parameter(weight.clone()) for name, weight in weights.items()}
        self.function = function
        self.step = 0
        self.metrics: dict[str, float] = {}

    def named_trainable(self) -> dict[str, torch.nn.Parameter]:
        return self.weights

    def trainable(self) -> list[torch.nn.Parameter]:
        return list(self.weights.values())

    @contextmanager
    def perturbed(self, weights: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]) -> Iterator[None]:
        with perturbed(weights, deltas):
            yield

    def output_axes(self, weights: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
        return [(0,) if weight.dim() > 1 else () for weight in weights]

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.step)

    def log(self, name: str, value: float | torch.Tensor) -> None:
        self.metrics[name] = float(value)

    def evaluate(self) -> StepLoss:
        return StepLoss(self.function(self.weights).detach(), golden_responses(), torch.arange(4))

    def gradient(self, tensors: list[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        return self.evaluate(), list(torch.autograd.grad(self.function(self.weights), tensors))

    def backward(self) -> StepLoss:
        self.function(self.weights).backward()  # type: ignore[no-untyped-call]
        return self.evaluate()

    def take(self, controller: Any) -> torch.Tensor:
        """The gradient that the controller leaves, as one vector."""
        controller.step(self)
        taken = flat([weight.grad for weight in self.trainable() if weight.grad is not None])
        for weight in self.trainable():
            weight.grad = None
        return taken

    def move(self, to: torch.Tensor) -> None:
        """The next step, at other weights (one vector)."""
        torch.nn.utils.vector_to_parameters(to, self.trainable())
        self.step += 1


class Quadratic(Toy):
    """½·xᵀHx − bᵀx of 15 numbers, ``map.weight`` (3, 4) and ``map.bias`` (3,): the gradient is Hx − b."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        root = torch.randn(15, 15, generator=draw, dtype=torch.float64)
        self.hessian, self.linear = root @ root.T / 15, torch.randn(15, generator=draw, dtype=torch.float64)
        x = torch.randn(15, generator=draw, dtype=torch.float64)
        super().__init__({"map.weight": x[:12].view(3, 4), "map.bias": x[12:]}, self._value)

    def _value(self, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        x = torch.cat([weight.flatten() for weight in weights.values()])
        return 0.5 * x @ self.hessian @ x - self.linear @ x

    @property
    def x(self) -> torch.Tensor:
        return flat([weight.detach() for weight in self.trainable()])

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient at ``x``."""
        return self.hessian @ x - self.linear


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
