"""Weights moved in place for the time of a ``with`` block, and the length of a list of tensors.

For controllers that perturb many weights. Where only a few columns of some maps move, or where weights are frozen or
quantised, :mod:`alignzoo.geometry.side_branch` leaves them untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alignzoo.lazy import torch


@contextmanager
def perturbed(parameters: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]) -> Iterator[None]:
    """Inside, every parameter holds its value plus its delta; after, also after an exception, its exact bits again.

    The sum is rounded to the parameter's dtype, so in bf16 a delta far below the weights mostly vanishes. ``.grad`` is
    left alone. Takes the memory of a second copy of the parameters while it is open.

    Args:
        parameters: leaves of any shape and floating-point dtype.
        deltas: as many tensors, each of its parameter's shape, in the weights' unit.

    Raises:
        ValueError: the numbers or shapes of parameters and deltas differ; nothing has been changed then.
    """
    shapes, moves = [tuple(p.shape) for p in parameters], [tuple(delta.shape) for delta in deltas]
    if shapes != moves:
        raise ValueError(f"the deltas' shapes {moves} are not those of the parameters {shapes}")
    # Copied back and not subtracted: (w + d) − d is not w in floating point.
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, delta in zip(parameters, deltas, strict=True):
                parameter.add_(delta.to(parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)


def norm(tensors: Sequence[torch.Tensor]) -> float:
    """Euclidean length of all tensors together, 0 for none; summed in float64 (fp32 where the device has none)."""
    if not tensors:
        return 0.0
    squares = [wide(tensor.detach()).square().sum() for tensor in tensors]
    return float(torch.stack([square.to(squares[0].device) for square in squares]).sum().sqrt())


def wide(tensor: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """The tensor in :func:`widest` precision, on its own device or on the one it is to go to."""
    device = device or tensor.device
    return tensor.to(widest(device)).to(device)


def widest(device: torch.device) -> torch.dtype:
    """float64, fp32 where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64
