"""Samples matched by rank."""

from __future__ import annotations

from alignzoo.lazy import torch


def of_same_rank(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """``(B,)``: for each of ``values``, the one of ``others`` that has its rank: the optimal transport between two
    samples on the line; differentiable in ``others``."""
    ranks = values.detach().argsort(stable=True).argsort(stable=True)
    return others.sort().values[ranks]
