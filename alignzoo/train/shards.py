"""The tensors of a sharded run in a checkpoint: every rank writes its rows, through ``torch.distributed.checkpoint``.

They lie in safetensors files, of about a gigabyte at most, whose headers say which rows of which tensor they hold; so
any number of ranks can read them, and nothing in them is ever run. In the rest of the state a tensor without content
(on the meta device) stands for each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from alignzoo.distributed.shards import is_sharded, whole_state
from alignzoo.errors import AlignzooError

FILE_BYTES = 1 << 30
"""About the bytes of a file, unless one rank's rows of a tensor are more: DCP holds a file in memory to write it."""
_BETWEEN = "/"  # of the places in a key; names of weights have dots


def set_apart(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The state with a meta tensor for each tensor that ranks share, and these by their place in it.

    Called on all ranks; what is distributed in any other way than by rows becomes whole, on the CPU.
    """
    shared: dict[str, torch.Tensor] = {}

    def cut(place: str, value: torch.Tensor) -> torch.Tensor:
        if not is_sharded(value):
            return value
        if not _by_rows(value):
            return whole_state(value)
        shared[place] = value.detach()
        return torch.empty(value.shape, dtype=value.dtype, device="meta")

    return _mapped(state, cut), shared


def _by_rows(tensor: Any) -> bool:
    return tensor.dim() > 0 and all(placement.is_shard(0) for placement in tensor.placements)


def _mapped(state: Any, change: Callable[[str, torch.Tensor], Any], place: str = "") -> Any:
    """The state with its tensors changed, each with its place."""
    if isinstance(state, torch.Tensor):
        return change(place, state)
    inside = f"{place}{_BETWEEN}" if place else ""
    if isinstance(state, dict):
        return {key: _mapped(value, change, f"{inside}{key}") for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(_mapped(value, change, f"{inside}{index}") for index, value in enumerate(state))
    return state


def write_shards(folder: Path, shared: Mapping[str, torch.Tensor]) -> None:
    """Write this rank's rows; called on all ranks.

    Raises:
        AlignzooError: a rank could not write; on all ranks.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    files, size = {}, 0
    for name, tensor in shared.items():
        size += tensor.numel() * tensor.element_size() // torch.distributed.get_world_size()
        files[name] = 1 + size // FILE_BYTES
    writer = dcp.HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(dict(shared), storage_writer=writer)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise AlignzooError(f"rank {rank}: {reason}") from error


def files_of_rank(folder: Path, rank: int) -> list[Path]:
    """The files that a rank has written."""
    return sorted(folder.glob(f"shard-{rank + 1:05d}-*.safetensors"))


def read_shards(folder: Path, state: Any, mesh: Any) -> Any:
    """The state with the tensors that are set apart, each rank with its rows of them.

    Args:
        folder: with safetensors files that hold them, whole or by rows.
        mesh: of the ranks that share them; None for whole tensors on the CPU.
    """
    import torch.distributed.checkpoint as dcp

    wanted: dict[str, torch.Tensor] = {}

    def place(name: str, value: torch.Tensor) -> torch.Tensor:
        if value.is_meta:
            wanted[name] = value = _room(value, mesh)
        return value

    filled = _mapped(state, place)
    if wanted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    return filled


def _room(tensor: torch.Tensor, mesh: Any) -> torch.Tensor:
    if mesh is None:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    from torch.distributed.tensor import Shard, empty

    rows: torch.Tensor = empty(tensor.shape, dtype=tensor.dtype, device_mesh=mesh, placements=[Shard(0)])
    return rows
