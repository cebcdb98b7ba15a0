"""Which part of a weight belongs to one output of its module, for norms that treat outputs equally (filter-wise).

``nn.Linear`` has one row per output, GPT-2's ``Conv1D`` one column; experts have rows or columns in each matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.distributed.shards import local, sums
from alignzoo.geometry.perturb import widest
from alignzoo.lazy import torch

Axes = tuple[int, ...]
"""Dimensions of a tensor that index its outputs; the other dimensions are an output's weights. ``()``: one output."""


def output_axes(model: torch.nn.Module, weights: Sequence[torch.Tensor]) -> list[Axes]:
    """The dimensions that index the outputs of a model's weights.

    One-dimensional tensors (biases, norm gains) and those outside any module count as one output.
    """
    wanted, found = {id(weight) for weight in weights}, dict[int, Axes]()
    for module in model.modules():
        for weight in module._parameters.values():
            if weight is not None and id(weight) in wanted:
                found.setdefault(id(weight), _axes(module, weight.dim()))
    return [found.get(id(weight), ()) for weight in weights]


def _axes(module: Any, dimensions: int) -> Axes:
    if dimensions < 2:
        return ()
    if dimensions == 3 and hasattr(module, "is_transposed"):  # experts of transformers, one matrix each
        return (0, 2) if module.is_transposed else (0, 1)
    return (1,) if has_row_per_input(module) else (0,)


def has_row_per_input(module: torch.nn.Module) -> bool:
    """Whether a linear map stores its weight as ``(in, out)``."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def squares_by_output(tensors: Sequence[torch.Tensor], axes: Sequence[Axes]) -> list[torch.Tensor]:
    """The squared Euclidean norm of each output's part of each tensor, over all ranks that share it.

    Returns:
        Tensors that broadcast with :func:`~alignzoo.distributed.shards.local` parts: if a tensor's first dimension
        indexes outputs, those of this rank's rows.
    """
    squares = []
    for tensor, kept in zip(tensors, axes, strict=True):
        piece = local(tensor)
        over = [dim for dim in range(piece.dim()) if dim not in kept]
        squares.append(torch.linalg.vector_norm(piece, dim=over, keepdim=True, dtype=widest(piece.device)).square())
    spread = [i for i, kept in enumerate(axes) if 0 not in kept]  # ranks have some rows each
    for i, square in zip(spread, sums([squares[i] for i in spread], [tensors[i] for i in spread]), strict=True):
        squares[i] = square
    return squares
