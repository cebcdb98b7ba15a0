"""Tensors of which every rank holds some rows, such as weights and gradients under FSDP2: DTensors sharded along dim 0.

Element-wise arithmetic needs none of this: torch does it shard by shard. Operations on several elements (norms, order
statistics, noise for a whole tensor) go through here, and then give the same result as on one process. Plain tensors
pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from alignzoo.lazy import F, torch


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this rank holds only a part of the tensor."""
    return hasattr(tensor, "device_mesh")


def mesh_of(tensors: Iterable[torch.Tensor]) -> Any:
    """The mesh of the ranks that share these tensors, None where none is sharded."""
    sharded: Any = next((tensor for tensor in tensors if is_sharded(tensor)), None)
    return None if sharded is None else sharded.device_mesh


def computes_on(weight: torch.Tensor) -> torch.device:
    """Where a model computes with this weight: not where it is, if weights are offloaded."""
    sharded: Any = weight
    kind = sharded.device_mesh.device_type if is_sharded(weight) else weight.device.type
    return weight.device if kind == weight.device.type else torch.device(kind, torch.accelerator.current_device_index())


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's rows, detached, in the tensor's own storage."""
    detached: Any = tensor.detach()
    return detached.to_local() if is_sharded(tensor) else detached


def rows_of(tensor: torch.Tensor) -> slice:
    """Which rows of the whole tensor this rank holds."""
    if not is_sharded(tensor):
        return slice(0, len(tensor))
    sharded: Any = tensor
    ranks, rank = sharded.device_mesh.size(), sharded.device_mesh.get_local_rank()
    each = -(-len(tensor) // ranks)  # as torch.chunk cuts
    start = min(rank * each, len(tensor))
    return slice(start, min(start + each, len(tensor)))


def like(rows: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """This rank's ``rows`` as a tensor sharded like ``tensor``."""
    if not is_sharded(tensor):
        return rows
    from torch.distributed.tensor import DTensor

    sharded: Any = tensor
    return DTensor.from_local(
        rows, sharded.device_mesh, sharded.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def cut_like(whole: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Shard a whole tensor, the same on all ranks, like ``tensor`` of the same shape; its dtype is kept, and so is a
    tensor that is sharded already."""
    whole = whole.to(tensor.device)
    if not is_sharded(tensor) or is_sharded(whole):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = tensor
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)


def beside(kept: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Place and shard state like the tensors: a checkpoint of one process returns it whole and on the CPU."""
    return [cut_like(value, tensor) for value, tensor in zip(kept, tensors, strict=True)]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the rows of all ranks, detached; a collective operation."""
    detached: Any = tensor.detach()
    return detached.full_tensor() if is_sharded(tensor) else detached


def whole_state(state: Any, *, keep: bool = True) -> Any:
    """A state dict with every sharded tensor made :func:`whole`, one at a time, on the CPU; a collective operation.

    Args:
        keep: False on ranks that do not need the result: they get empty tensors.
    """
    if isinstance(state, torch.Tensor):
        if not is_sharded(state):
            return state
        gathered = whole(state)
        return gathered.cpu() if keep else torch.empty(0, dtype=gathered.dtype)
    if isinstance(state, dict):
        return {key: whole_state(value, keep=keep) for key, value in state.items()}
    return type(state)(whole_state(value, keep=keep) for value in state) if type(state) in (list, tuple) else state


def sums(parts: Sequence[torch.Tensor], of: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Sum each tensor's partial results over the ranks that share it, in one all-reduce.

    Args:
        parts: one small tensor for each of ``of``, all of the same dtype.
    """
    shared = [i for i, tensor in enumerate(of) if is_sharded(tensor)]
    if not shared:
        return list(parts)
    joined = torch.cat([parts[i].flatten() for i in shared])
    torch.distributed.all_reduce(joined, group=_group(of[shared[0]]))
    found = list(parts)
    for i, piece in zip(shared, joined.split([parts[i].numel() for i in shared]), strict=True):
        found[i] = piece.view_as(parts[i])
    return found


def count(masks: Sequence[torch.Tensor]) -> int:
    """Number of True elements, over all masks and ranks."""
    return sum(int(part) for part in sums([local(mask).sum() for mask in masks], masks))


class Rows:
    """A selection of values from each tensor, in the order of the whole tensor, however it is sharded.

    Args:
        values: this rank's values of each tensor, one-dimensional.
        of: the tensors.
    """

    def __init__(self, values: Sequence[torch.Tensor], of: Sequence[torch.Tensor]) -> None:
        self._values = list(values)
        self._sharded = next((tensor for tensor in of if is_sharded(tensor)), None)
        mine = torch.tensor([len(value) for value in values])
        each = mine[None] if self._sharded is None else _gathered(mine.to(self._sharded.device), self._sharded).cpu()
        rank = 0 if self._sharded is None else torch.distributed.get_rank(_group(self._sharded))
        self.counts: list[int] = each.sum(0).tolist()
        self._before: list[int] = each[:rank].sum(0).tolist()

    def offsets(self) -> list[slice]:
        """Positions of this rank's values among all values of all tensors, tensor by tensor."""
        places, start = [], 0
        for value, total, before in zip(self._values, self.counts, self._before, strict=True):
            places.append(slice(start + before, start + before + len(value)))
            start += total
        return places

    def all(self) -> torch.Tensor:
        """All values of all tensors and ranks, in no particular order."""
        return self._joined(self._values)

    def drawn(self, draws: Sequence[torch.Tensor]) -> torch.Tensor:
        """The values at these indices of each tensor, in no particular order; indices must agree on all ranks."""
        kept = []
        for value, before, index in zip(self._values, self._before, draws, strict=True):
            mine = index[(index >= before) & (index < before + len(value))] - before
            kept.append(value[mine.to(value.device)])
        return self._joined(kept)

    def _joined(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        mine = torch.cat(list(values))
        if self._sharded is None:
            return mine
        lengths = _gathered(torch.tensor([len(mine)], device=mine.device), self._sharded).flatten().tolist()
        padded = _gathered(F.pad(mine, (0, max(lengths) - len(mine))), self._sharded)
        return torch.cat([row[:length] for row, length in zip(padded, lengths, strict=True)])


def _group(tensor: torch.Tensor) -> Any:
    sharded: Any = tensor
    return sharded.device_mesh.get_group()


def _gathered(value: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """``(ranks, ...)``: the value of every rank that shares ``tensor``."""
    group = _group(tensor)
    found = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(found, value.contiguous(), group=group)
    return torch.stack(found)
