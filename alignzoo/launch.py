"""How this process was launched, from the environment that ``accelerate launch`` and ``torchrun`` set."""

from __future__ import annotations

import os


def distributed_backend() -> str:
    """``none``, ``ddp``, ``fsdp`` or ``deepspeed``, as the resolver calls them."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        return "deepspeed"
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        return "fsdp"
    return "ddp" if int(os.environ.get("WORLD_SIZE") or 1) > 1 else "none"


def is_first_rank() -> bool:
    """Whether this process is the one that prints and writes."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0
