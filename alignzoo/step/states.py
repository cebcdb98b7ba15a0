"""The states of methods in checkpoints: plain data, unsharded on every rank that writes."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.distributed.shards import is_sharded, whole_state
from alignzoo.errors import MethodError


def plain_state(method: Any, *, keep: bool = True, sharded: bool = False) -> dict[str, Any]:
    """The method's state, if a checkpoint can hold it; sharded tensors are made whole, so all ranks call it.

    Args:
        keep: False on ranks that do not write: what was sharded is empty there.
        sharded: leave sharded tensors as they are instead.

    Raises:
        MethodError: it holds something that could not be read back without running code.
    """
    state: dict[str, Any] = method.state_dict() if sharded else whole_state(method.state_dict(), keep=keep)
    strange = _not_plain(state)
    if strange is not None:
        raise MethodError(
            f"{type(method).__name__}.state_dict() contains a {strange}, but a checkpoint takes tensors, numbers, "
            "strings, lists and dicts of them"
        )
    return state


def _not_plain(value: Any) -> str | None:
    """The type of the first thing in ``value`` that is not plain data."""
    if isinstance(value, dict):
        return next((found for item in (*value, *value.values()) if (found := _not_plain(item))), None)
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := _not_plain(item))), None)
    if isinstance(value, torch.Tensor) and is_sharded(value):
        return None
    return None if type(value) in (torch.Tensor, int, float, bool, str, type(None)) else type(value).__name__
