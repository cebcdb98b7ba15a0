"""Weights perturbed in place within a ``with`` block, and norms and products of lists of tensors.

For controllers that perturb many weights. If only a few columns are perturbed, or weights are frozen or quantised,
:mod:`alignzoo.geometry.side_branch` leaves the weights untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alignzoo.distributed.shards import local, sums
from alignzoo.lazy import torch

if TYPE_CHECKING:
    from alignzoo.geometry.survival import Survival

_PIECE = 1 << 20  # elements: small compared with a model, and few enough for a sum in fp32
_PIECE_ON_A_GPU = 1 << 30  # cuBLAS counts in 32 bits


@contextmanager
def perturbed(
    parameters: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    *,
    survival: Survival | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
) -> Iterator[None]:
    """Inside, every parameter holds its value plus its delta; afterwards, even after an exception, its exact bits.

    The sum is rounded to the parameter's dtype, so in bf16 a delta much smaller than the weights mostly vanishes.
    ``.grad`` is not touched. Needs the memory of a second copy of the parameters while open, and releases the deltas.

    Args:
        parameters: leaves of any shape and floating-point dtype, sharded or not.
        deltas: as many tensors, each of its parameter's shape, in the weights' unit.
        survival: measures how much of the deltas remains when the forward uses the parameters in these ``dtypes``, by
            default their own.

    Raises:
        ValueError: number or shapes of parameters and deltas differ; nothing has been changed.
    """
    shapes, moves = shapes_of(parameters), shapes_of(deltas)
    if shapes != moves:
        raise ValueError(f"the deltas' shapes {moves} are not those of the parameters {shapes}")
    # Copied back and not subtracted: (w + d) − d is not w in floating point.
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            _add(parameters, deltas)
            if survival is not None:
                seen = dtypes or [parameter.dtype for parameter in parameters]
                for before, after, delta, dtype in zip(saved, parameters, deltas, seen, strict=True):
                    survival.add_move(before, after, delta, dtype)
                    del delta  # do not hold the last one while the block runs
        del deltas
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)


def norm(tensors: Sequence[torch.Tensor]) -> float:
    """Euclidean norm of all tensors together, 0 for none; summed in float64 (fp32 if the device has none)."""
    if isinstance(tensors, Scaled):
        return tensors.length
    return total([squared(local(tensor)) for tensor in tensors], tensors) ** 0.5


def dot(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The inner product over all tensors together, summed as in :func:`norm`."""
    pairs = zip(map(local, one), map(local, other), strict=True)
    return total([products(a, b)[1] for a, b in pairs], one)


def cosine(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Cosine between two lists of tensors of the same shapes; 0 if one is zero."""
    if not one:
        return 0.0
    found = sums([products(a, b) for a, b in zip(map(local, one), map(local, other), strict=True)], one)
    square, product, across = torch.stack([part.to(found[0].device) for part in found]).sum(0).tolist()
    lengths = (square * across) ** 0.5
    return float(product / lengths) if lengths > 0 else 0.0


def total(parts: Sequence[torch.Tensor], of: Sequence[torch.Tensor]) -> float:
    """The sum over all tensors and ranks of one number per tensor, computed from this rank's part of it."""
    if not parts:
        return 0.0
    return float(torch.stack([part.to(parts[0].device) for part in sums(parts, of)]).sum())


def squared(rows: torch.Tensor) -> torch.Tensor:
    """The squared Euclidean norm, ``()``, in :func:`widest` precision, without a wide copy."""
    return torch.linalg.vector_norm(rows, dtype=widest(rows.device)).square()


class Scaled(Sequence["torch.Tensor"]):
    """Tensors times a number, multiplied lazily on access: no copy of all of them is held.

    Args:
        parts: the tensors.
        length: the Euclidean norm of all of them.
    """

    def __init__(self, parts: Sequence[torch.Tensor], factor: float, length: float) -> None:
        self.parts, self._factor = parts, factor
        self.length_of_parts, self.length = length, abs(factor) * length

    def times(self, factor: float) -> Scaled:
        """The same tensors times another number."""
        return Scaled(self.parts, factor * self._factor, self.length_of_parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._factor * part for part in self.parts[index]]
        return self._factor * self.parts[index]


def shapes_of(tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """The tensors' shapes."""
    return [tuple(t.shape) for t in (tensors.parts if isinstance(tensors, Scaled) else tensors)]


def _add(parameters: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor]) -> None:
    for parameter, delta in zip(parameters, deltas, strict=True):
        parameter.add_(delta.to(parameter.dtype))


def products(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``(3,)``: one·one, one·other and other·other, in :func:`widest` precision.

    Computed piece by piece, in at least fp32 within a piece: a wide copy of all weights would be slow.
    """
    device, dtype = one.device, torch.promote_types(one.dtype, torch.float32)
    size = _PIECE if device.type == "cpu" else _PIECE_ON_A_GPU
    found = []
    for a, b in zip(one.flatten().split(size), other.flatten().to(device).split(size), strict=True):
        a, b = a.to(dtype), b.to(dtype)
        found += [torch.dot(a, a), torch.dot(a, b), torch.dot(b, b)]
    return torch.stack(found).to(widest(device)).view(-1, 3).sum(0)


def widest(device: torch.device) -> torch.dtype:
    """float64, or fp32 if the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64
