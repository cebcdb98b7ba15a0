"""The small regression on which the authors' optimizers ran: eight examples, a network of 21 weights, float64."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

EXAMPLES = 8


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers in float64, by Python's own generator: the same on every machine."""
    draw = random.Random(seed)
    count = int(torch.Size(shape).numel())
    return torch.tensor([draw.gauss(0, 1) for _ in range(count)], dtype=torch.float64).view(shape)


def network() -> torch.nn.Sequential:
    """``0.weight`` (3, 4), ``0.bias`` (3,) and ``2.weight`` (2, 3)."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2, bias=False)).double()
    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.copy_(0.7 * numbers(seed, *weight.shape))
    return model


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (8, 4) and targets (8, 2)."""
    return numbers(10, EXAMPLES, 4), numbers(11, EXAMPLES, 2)


def squared_errors(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss for each example."""
    return (outputs - targets).square().sum(1)


def cross_entropies(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Another: −Σ t·log softmax(outputs), as ``CrossEntropyLoss`` has it for targets that are not classes."""
    return -(targets * outputs.log_softmax(1)).sum(1)


def flat(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors if tensor is not None]).clone()
