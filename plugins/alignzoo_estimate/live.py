"""Bytes of tensors as they are allocated and freed."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MAPPED = 1 << 30
"""glibc maps blocks from this size on one by one, and gives them back when they are freed; smaller ones it cuts from a
heap that it keeps (as :mod:`alignzoo.base.heap` has a run on a CPU set it)."""


class Live(TorchDispatchMode):
    """Counts the bytes of live storages that were allocated while it was active, except those of ``leaves``.

    Attributes:
        now, peak: bytes; ``peak`` can be reset to ``now``.
        copies: the part of ``now`` in casts of leaves to another dtype.
        small: bytes of blocks below :data:`MAPPED` that were allocated so far, whether or not they still live.
        small_now: those that do.
    """

    def __init__(self, leaves: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = self.copies = 0
        self.small = self.small_now = 0
        self._leaves = {leaf.untyped_storage()._cdata for leaf in leaves}
        self._known: dict[int, Any] = dict.fromkeys(self._leaves)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._grouped_mm.default and isinstance(args[0], FakeTensor):
            out: Any = _grouped(*args, **(kwargs or {}))
        else:
            out = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self._leaves
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage(), cast)
        return out

    def _see(self, storage: torch.UntypedStorage, cast: bool) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, lambda _gone: self._let_go(key, size, cast))
        self.now += size
        self.copies += size * cast
        self.small += size * (size < MAPPED)
        self.small_now += size * (size < MAPPED)
        self.peak = max(self.peak, self.now)

    def _let_go(self, key: int, size: int, cast: bool) -> None:
        if self._known.pop(key, None) is not None:
            self.now -= size
            self.copies -= size * cast
            self.small_now -= size * (size < MAPPED)

    def restart(self) -> float:
        """The peak since the last call."""
        found, self.peak = self.peak, self.now
        return float(found)


def _grouped(one: torch.Tensor, other: torch.Tensor, offs: torch.Tensor, *_: Any, **_words: Any) -> torch.Tensor:
    """The product of experts' maps in any dtype; torch only supports bf16 here."""
    if one.dim() == other.dim() == 2:
        return one.new_empty(len(offs), one.shape[0], other.shape[1])
    return one.new_empty(one.shape[-2], other.shape[-1])
