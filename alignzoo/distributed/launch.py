"""How this process was launched, from the environment that ``accelerate launch`` and ``torchrun`` set."""

from __future__ import annotations

import os

from alignzoo.errors import IncompatibleError

_ASKED, _OURS = "ACCELERATE_USE_FSDP", "ALIGNZOO_FSDP"


def distributed_backend() -> str:
    """``none``, ``ddp``, ``fsdp`` (that is FSDP2), ``fsdp1`` or ``deepspeed``, as the resolver calls them."""
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return "deepspeed"
    if _is_on(_ASKED) and os.environ.get("FSDP_VERSION") != "2":
        return "fsdp1"
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return "none"
    return "fsdp" if _is_on(_ASKED) or _is_on(_OURS) else "ddp"


def take_over_sharding() -> None:
    """From here on, FSDP2 requested by ``accelerate launch`` is handled by :mod:`alignzoo.distributed.sharding`.

    Otherwise accelerate would wrap models in its own way, and transformers would load weights on one rank only.

    Raises:
        IncompatibleError: the launch requests an FSDP feature that is not supported.
    """
    if not _is_on(_ASKED):
        return
    off = "switch it off in accelerate's configuration"
    if _is_on("FSDP_OFFLOAD_PARAMS"):
        raise IncompatibleError(
            "this launch requests parameter offloading (fsdp_offload_params), which has a flag here",
            hint=f"{off}, and use --offload weights",
        )
    if _is_on("FSDP_ACTIVATION_CHECKPOINTING"):
        raise IncompatibleError(
            "this launch requests activation checkpointing (fsdp_activation_checkpointing), which has a flag here",
            hint=f"{off}, and use --activation-checkpointing",
        )
    os.environ[_OURS] = os.environ.pop(_ASKED)


def reshards_after_forward() -> bool:
    """Whether a layer's gathered weights are freed between forward and backward: accelerate's setting, default on."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")


def is_first_rank() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0
