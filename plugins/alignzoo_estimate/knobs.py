"""The settings of a run that decide in which dtype, and on which side of the bus, its bytes are."""

from __future__ import annotations

from typing import Any

from alignzoo.plan.settings import Settings

FP32, BF16 = 4, 2
"""Bytes of a number."""


def computes_in_bf16(settings: Settings, *, cuda: bool) -> bool:
    """``--precision``; ``auto`` is bf16 on a GPU, and fp32 on a CPU."""
    return settings.precision == "bf16" or (settings.precision == "auto" and cuda)


def frozen_bytes(settings: Settings, *, bf16: bool) -> int:
    """Bytes of a frozen weight of a LoRA run (``--weights``; ``auto`` goes with the compute dtype); trained weights are
    always fp32."""
    kind = _value(settings, "weights", "fp32")
    return BF16 if settings.lora_r and (kind == "bf16" or (kind == "auto" and bf16)) else FP32


def offloads_weights(settings: Settings) -> bool:
    """``--offload weights``: shards of weights, gradients and optimizer state are in host memory."""
    return bool(_value(settings, "offload", "none") == "weights")


def offloads_activations(settings: Settings) -> bool:
    """``--activation-offloading``: saved activations are in host memory."""
    return bool(_value(settings, "activation_offloading", False))


def _value(settings: Settings, name: str, default: Any) -> Any:
    """A setting, or its default where there is none of this name."""
    return getattr(settings, name, default)
