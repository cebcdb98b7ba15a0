"""How fast a loss rises around given weights: worst case and average, over radii, within a subspace.

    worst case   L(θ + r·g/‖g‖) − L(θ)         g = ∇L(θ) within the subspace: one ascent step of length r
    average      mean over N of L(θ + r·u_i) − L(θ)     u_i seeded Gaussian directions of length 1 in the subspace

Radii are Euclidean norms over all weights of the subspace, so subspaces are compared at the same ‖ε‖.
The weights are restored bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch

from alignzoo.errors import AlignzooError
from alignzoo.geometry.perturb import norm, perturbed
from alignzoo.report import Progress


@dataclass(frozen=True)
class Subspace:
    """A subset of a model's weights, or of their entries.

    Attributes:
        weights: the parameters themselves.
        masks: bool tensors of the same shapes, True at the entries that may move; None if all may.
    """

    name: str
    weights: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor] | None = None

    @property
    def size(self) -> int:
        """The number of entries that may move."""
        return sum(int(t.sum()) for t in self.masks) if self.masks is not None else sum(w.numel() for w in self.weights)

    def inside(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Tensors of the weights' shapes, zero at the fixed entries."""
        if self.masks is None:
            return list(tensors)
        return [tensor * mask for tensor, mask in zip(tensors, self.masks, strict=True)]


def measure(
    value: Callable[[], float],
    gradient: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    subspaces: Sequence[Subspace],
    radii: Sequence[float],
    *,
    directions: int,
    seed: int,
    bar: Progress,
) -> dict[str, Any]:
    """The loss at the weights, and its increase in each subspace.

    Args:
        value: the loss at the current weights.
        gradient: its gradient at the current weights, for some of them.
        radii: norms, in the weights' unit; positive.
        directions: N, at least 1.

    Returns:
        ``loss``, and under ``subspaces`` for each ``name``, ``weights`` (entries that move), ``gradient_norm``
        and ``slices``: for each ``radius`` the increase in the ``worst`` case (None if the gradient is 0), on
        ``average``, its ``spread`` (standard deviation over directions, 0 for one) and for each direction, ``random``.

    Raises:
        AlignzooError: the loss is not finite at the weights or at a perturbed point.
    """
    here = _finite(value(), "at the weights")
    measured = []
    for subspace in subspaces:
        ascent = subspace.inside(gradient(subspace.weights))
        length = norm(ascent)
        worst = _rises(value, here, subspace, ascent, radii, bar) if length > 0 else [None] * len(radii)
        random = [
            _rises(value, here, subspace, direction, radii, bar)
            for direction in _directions(subspace, directions, seed)
        ]
        measured.append(
            {
                "name": subspace.name,
                "weights": subspace.size,
                "gradient_norm": length,
                "slices": [
                    {
                        "radius": radius,
                        "worst": worst[i],
                        "average": fmean(rises[i] for rises in random),
                        "spread": stdev(rises[i] for rises in random) if len(random) > 1 else 0.0,
                        "random": [rises[i] for rises in random],
                    }
                    for i, radius in enumerate(radii)
                ],
            }
        )
    return {"loss": here, "subspaces": measured}


def _rises(
    value: Callable[[], float],
    here: float,
    subspace: Subspace,
    direction: Sequence[torch.Tensor],
    radii: Sequence[float],
    bar: Progress,
) -> list[float]:
    """The loss increase at every radius along a direction."""
    length, found = norm(direction), []
    for radius in radii:
        with perturbed(subspace.weights, [radius / length * part for part in direction]):
            found.append(_finite(value(), f"at radius {radius:g} in {subspace.name}") - here)
        bar.advance()
    return found


def _directions(subspace: Subspace, count: int, seed: int) -> Iterator[list[torch.Tensor]]:
    """Gaussian directions, one at a time; the same on every device, and a prefix of any longer sequence."""
    for number in range(count):
        draw = torch.Generator().manual_seed(seed * 1_000_003 + number)
        yield subspace.inside(
            [torch.randn(weight.shape, generator=draw).to(weight.device, weight.dtype) for weight in subspace.weights]
        )


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise AlignzooError(f"the loss is {value} {where}", hint="use smaller --radii, or check the model")
    return value
