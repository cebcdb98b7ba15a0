"""How many rows fit into memory."""

from __future__ import annotations

import os
from typing import Any

import torch

_SHARE = 0.5
"""Part of the free memory that keys and values may take."""
_MOST = 256
"""Most rows at a time: beyond, a step takes longer in proportion."""


def rows_that_fit(cache: Any, longest: int) -> int:
    """Rows of ``longest`` tokens whose keys and values fit into half of the free memory.

    Args:
        cache: of a few rows, to measure a token by.
    """
    states = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    bytes_per_token = sum(part[:1, :, :1].numel() * part.element_size() for part in states)
    device = states[0].device
    fit = int(_SHARE * _free_bytes(device) / (bytes_per_token * longest))
    return max(1, min(fit, _MOST))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device ran out of memory, which fewer rows can avoid."""
    return isinstance(error, torch.OutOfMemoryError)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):  # not on every system
        return float(2**32)
