"""The settings of a run that decide in which dtype, and on which side of the bus, its bytes are."""

from __future__ import annotations

from alignzoo.model.precision import against_bf16
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings

FP32, BF16 = 4, 2
"""Bytes of a number."""


def computes_in_bf16(plan: Plan, *, cuda: bool) -> bool:
    """``--precision``; ``auto`` is bf16 on a GPU, if no method needs fp32, and fp32 on a CPU."""
    if plan.settings.precision == "auto":
        return cuda and against_bf16(plan) is None
    return plan.settings.precision == "bf16"


def frozen_bytes(settings: Settings, *, bf16: bool) -> int:
    """Bytes of a frozen weight of a LoRA run (``--weights``; ``auto`` goes with the compute dtype); trained weights are
    always fp32."""
    narrow = settings.weights == "bf16" or (settings.weights == "auto" and bf16)
    return BF16 if settings.lora_r and narrow else FP32
