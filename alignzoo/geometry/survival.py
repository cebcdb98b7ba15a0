"""How much of a perturbation a forward pass sees once everything has been rounded to the dtypes that it computes in.

*Survival* is ⟨a, ε⟩/⟨ε, ε⟩, with ε the perturbation that was asked for and a what arrives of it: weights as the forward
uses them at θ + ε less those at θ, or, for a side branch, what it changes in its layer's output. It is 1 where nothing
is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.distributed.shards import local, sums
from alignzoo.geometry.perturb import products
from alignzoo.lazy import torch

_PIECE = 1 << 22  # elements that are cast at a time: few beside a model's


class Survival:
    """The two products, added up on the device; nothing waits for them before :meth:`share`."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []  # (2,) each: ⟨a, ε⟩ and ⟨ε, ε⟩

    def add(self, arrived: torch.Tensor, asked: torch.Tensor) -> None:
        """Count a tensor of what arrived and one of what was asked for."""
        self._parts.append(products(arrived, asked)[1:])

    def add_move(self, before: torch.Tensor, after: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> None:
        """Count this rank's part of a weight that moved by ``delta`` and that the forward uses in ``dtype``."""
        wide, found = torch.promote_types(before.dtype, torch.float32), []
        tensors = (local(tensor).flatten().split(_PIECE) for tensor in (before, after, delta))
        for old, new, asked in zip(*tensors, strict=True):
            found.append(products(new.to(dtype).to(wide) - old.to(dtype).to(wide), asked)[1:])
        self._parts.append(torch.stack(found).sum(0))

    def share(self, of: Sequence[torch.Tensor] | None = None) -> float:
        """The survival; 1 where there is no perturbation.

        Args:
            of: the weights that were counted, in their order, of which each rank may have had a part.
        """
        if not self._parts:
            return 1.0
        parts = self._parts if of is None else sums(self._parts, of)
        arrived, asked = torch.stack([part.to(parts[0].device) for part in parts]).sum(0).tolist()
        return float(arrived / asked) if asked > 0 else 1.0


def dtypes_in_forward(
    model: torch.nn.Module, weights: Sequence[torch.Tensor], autocast: torch.dtype | None
) -> list[torch.dtype]:
    """The dtypes in which a forward of the model uses its weights, under autocast to this dtype.

    Autocast casts what enters products, the parameters of maps; embeddings that are looked up and gains of norms stay.
    """
    cast: set[int] = set()
    for module in model.modules():
        own = [parameter for parameter in module._parameters.values() if parameter is not None]
        if any(parameter.dim() > 1 for parameter in own) and not _left_by_autocast(module):
            cast.update(map(id, own))
    return [
        weight.dtype if autocast is None or weight.dtype == torch.float64 or id(weight) not in cast else autocast
        for weight in weights
    ]


def _left_by_autocast(module: Any) -> bool:
    """Whether a module with matrices computes with them as they are: look-ups, and products of grouped experts."""
    experts = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return isinstance(module, torch.nn.Embedding) or (hasattr(module, "is_transposed") and experts == "grouped_mm")
