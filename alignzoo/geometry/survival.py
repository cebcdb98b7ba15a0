"""How much of a perturbation a forward pass sees after rounding to the dtypes it computes in.

*Survival* is ⟨a, ε⟩/⟨ε, ε⟩, where ε is the requested perturbation and a what remains of it: the weights as the forward
uses them at θ + ε minus those at θ or, for a side branch, the change in its layer's output. It is 1 if nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.distributed.shards import local, sums
from alignzoo.geometry.perturb import products
from alignzoo.lazy import torch

_PIECE = 1 << 22  # elements cast at a time: few compared with a model


class Survival:
    """The two inner products, accumulated on the device; there is no synchronisation before :meth:`share`."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []  # (2,) each: ⟨a, ε⟩ and ⟨ε, ε⟩

    def add(self, arrived: torch.Tensor, asked: torch.Tensor) -> None:
        """Add what remains of a requested perturbation."""
        self._parts.append(products(arrived, asked)[1:])

    def add_move(self, before: torch.Tensor, after: torch.Tensor, delta: torch.Tensor, dtype: torch.dtype) -> None:
        """Add this rank's part of a weight that was perturbed by ``delta`` and that the forward uses in ``dtype``."""
        wide, found = torch.promote_types(before.dtype, torch.float32), []
        tensors = (local(tensor).flatten().split(_PIECE) for tensor in (before, after, delta))
        for old, new, asked in zip(*tensors, strict=True):
            found.append(products(new.to(dtype).to(wide) - old.to(dtype).to(wide), asked)[1:])
        self._parts.append(torch.stack(found).sum(0))

    def share(self, of: Sequence[torch.Tensor] | None = None) -> float:
        """The survival; 1 if there is no perturbation.

        Args:
            of: the weights that were added, in order, if they may be sharded over ranks.
        """
        if not self._parts:
            return 1.0
        parts = self._parts if of is None else sums(self._parts, of)
        arrived, asked = torch.stack([part.to(parts[0].device) for part in parts]).sum(0).tolist()
        return float(arrived / asked) if asked > 0 else 1.0


def dtypes_in_forward(
    model: torch.nn.Module, weights: Sequence[torch.Tensor], autocast: torch.dtype | None
) -> list[torch.dtype]:
    """The dtypes in which a forward pass of the model uses its weights, under autocast to this dtype.

    Autocast casts the inputs of matrix products, such as the parameters of linear maps; embeddings and norm gains stay.
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
    """Whether autocast leaves a module's matrices as they are: embeddings, and grouped products of experts."""
    experts = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return isinstance(module, torch.nn.Embedding) or (hasattr(module, "is_transposed") and experts == "grouped_mm")
