"""Directions of a linear map's input space that given texts do not use: the null space of K = Σ h hᵀ.

``h`` are the inputs of a map at all tokens of the texts. Maps with the same input (an MLP's gate and up projection)
share its K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from alignzoo.data.collate import padded_texts
from alignzoo.distributed.sharding import parts_callable
from alignzoo.distributed.shards import computes_on
from alignzoo.geometry.perturb import widest
from alignzoo.geometry.projections import Projection
from alignzoo.model.base import without_adapter
from alignzoo.report import Progress


@dataclass(frozen=True)
class Directions:
    """A subspace of a ``size``-dimensional space: the span of the orthonormal ``basis`` ``(size, k)`` or, with
    ``complement``, its orthogonal complement; whichever takes less memory."""

    size: int
    basis: torch.Tensor
    complement: bool

    def __len__(self) -> int:
        """Its dimension."""
        return self.size - self.basis.shape[1] if self.complement else self.basis.shape[1]

    def project(self, columns: torch.Tensor) -> torch.Tensor:
        """``P x`` of each column x of ``(size, n)``, in the columns' dtype; P is the orthogonal projection."""
        basis = self.basis.to(columns.dtype)
        inside = basis @ (basis.T @ columns)
        return columns - inside if self.complement else inside


@dataclass
class Inputs:
    """The common input of some maps of a model.

    Attributes:
        readers: the maps.
        moment: K, ``(d, d)`` in float64.
    """

    moment: torch.Tensor
    readers: list[Projection] = field(default_factory=list)


@torch.no_grad()
def read_inputs(
    model: Any,
    projections: Sequence[Projection],
    sequences: Sequence[Sequence[int]],
    *,
    tokens_per_batch: int = 4096,
    bar: Progress,
) -> list[Inputs]:
    """The inputs of the maps over all tokens of the sequences, without padding; the model is restored.

    Products are computed in fp32 (float64 for a float64 model) and summed in float64.
    """
    policy, model = model, without_adapter(model)
    trunk, device = getattr(model, model.base_model_prefix), computes_on(next(model.parameters()))
    modes = {module: module.training for module in model.modules()}
    listener = _Listener()
    handles = [p.module.register_forward_pre_hook(listener.hook_of(p)) for p in projections]
    model.eval()
    try:
        with parts_callable(policy):
            for chosen, ids, mask in padded_texts(sequences, tokens_per_batch):
                listener.mask = mask.to(device).bool().flatten()
                trunk(input_ids=ids.to(device), attention_mask=mask.to(device))
                for _ in chosen:
                    bar.advance()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return list(listener.inputs.values())


class _Listener:
    """Accumulates the inputs of maps over forward passes; for maps with the same input, only the first one counts."""

    def __init__(self) -> None:
        self.inputs: dict[str, Inputs] = {}  # by the name of the first map that reads them
        self.mask = torch.empty(0)
        self._last: tuple[torch.Tensor | None, str] = (None, "")

    def hook_of(self, projection: Projection) -> Any:
        def see(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            states = given[0]
            last, first = self._last
            if states is last:
                if projection not in self.inputs[first].readers:
                    self.inputs[first].readers.append(projection)
                return
            self._last = states, projection.name
            rows = states.reshape(-1, states.shape[-1])[self.mask]
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            if projection.name not in self.inputs:
                moment = rows.new_zeros(projection.inner, projection.inner, dtype=widest(rows.device))
                self.inputs[projection.name] = Inputs(moment, [projection])
            self.inputs[projection.name].moment += rows.T @ rows

        return see


def free_directions(moment: torch.Tensor, alpha: float, dtype: torch.dtype) -> Directions:
    """The eigenvectors of K with eigenvalue S ≤ α·S_max, the same on all ranks; all of them if K is 0 or α ≥ 1.

    Args:
        moment: K, ``(d, d)`` float64.
        dtype: of the returned directions.
    """
    home = moment.device if widest(moment.device) == torch.float64 else torch.device("cpu")
    values, vectors = torch.linalg.eigh(moment.to(home, torch.float64))
    vectors = vectors.contiguous()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(values, src=0)
        torch.distributed.broadcast(vectors, src=0)
    size = len(values)
    free = int((values <= alpha * values[-1]).sum())  # ascending: the free ones come first
    complement = free > size - free
    basis = vectors[:, free:] if complement else vectors[:, :free]
    return Directions(size, basis.to(moment.device, dtype, copy=True), complement)
