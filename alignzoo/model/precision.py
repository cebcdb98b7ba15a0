"""What ``--precision auto`` and ``--weights auto`` mean on this machine, for these methods and this model."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.distributed.process import launched
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import UsageError
from alignzoo.lazy import torch
from alignzoo.plan.plan import Plan
from alignzoo.plan.planfile import DEVICE, FITTED
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

    from alignzoo.model.source import ModelSource

Dtype = Literal["fp32", "bf16"]


def launched_for(plan: Plan, report: Reporter, **options: Any) -> tuple[Plan, Accelerator]:
    """The plan :func:`with_precision`, and the accelerator that computes in it.

    Args:
        options: more words for ``accelerate.Accelerator``.

    Raises:
        UsageError: see :func:`with_precision`; or ranks on different devices would choose differently.
    """
    resolved, why = with_precision(plan)
    if why is not None:
        report.note(why)
    precision = resolved.settings.precision
    accelerator = launched(precision=precision, **options)
    found = sorted({*on_all_ranks(accelerator, lambda: precision)})
    if len(found) > 1:
        raise UsageError(
            f"--precision auto is {' on one rank and '.join(found)} on another: their devices differ",
            hint="state it: --precision fp32, or bf16",
        )
    return resolved, accelerator


def with_precision(plan: Plan) -> tuple[Plan, str | None]:
    """The plan with ``fp32`` or ``bf16`` in place of ``--precision auto``, and one line that says why.

    bf16 where the device computes in it natively and no method of the plan needs fp32 for the weights that it trains.
    A plan that states its precision stays as it is, without a line; on a CPU, where it always is fp32, there is none
    either.

    Raises:
        UsageError: ``--weights bf16``, and the precision is fp32.
    """
    if plan.settings.precision != "auto":
        return plan, None
    precision, why = _chosen(plan)
    if plan.settings.weights == "bf16" and precision == "fp32":
        raise UsageError(
            f"--weights bf16 needs bf16 products, and the precision is fp32 ({why})",
            hint="add --precision bf16, or leave --weights out",
        )
    settings = _with(plan.settings, precision=precision)
    resolved = replace(plan, settings=settings, origins={**plan.origins, "precision": DEVICE})
    return resolved, None if device_kind() == "cpu" else f"precision: {precision} ({why})"


def against_bf16(plan: Plan) -> str | None:
    """Which method of the plan needs fp32 for the weights that it trains, and why; None if none does."""
    for method in plan.all_methods if not plan.settings.lora_r else ():
        if method.needs_fp32:
            return f"{method.card.kind} {method.card.name}: {method.needs_fp32}"
    return None


def _chosen(plan: Plan) -> tuple[Dtype, str]:
    kind = device_kind()
    native = native_bf16(kind)
    if native and (why := against_bf16(plan)):
        return "fp32", why
    if kind == "cpu":
        return "fp32", "on a CPU, so that results are the same on every one; --precision bf16 is for larger models"
    return ("bf16", f"native on this {kind} device") if native else ("fp32", f"this {kind} device has no native bf16")


def device_kind() -> str:
    """The kind of device that a launch computes on: ``cpu``, ``cuda``, ``xpu``, …"""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else str(found.type)


def native_bf16(kind: str) -> bool:
    """Whether this process's device of the kind computes in bf16 natively: on CUDA from compute capability 8.0 on.

    Where torch has no word on it (MPS, a CPU), it counts as no.
    """
    supported = getattr(getattr(torch, kind, None), "is_bf16_supported", None)
    if kind == "cpu" or supported is None:
        return False
    return bool(supported(including_emulation=False) if kind == "cuda" else supported())


def with_weights(plan: Plan, source: ModelSource, *, trains: bool) -> Plan:
    """The plan with ``fp32`` or ``bf16`` in place of ``--weights auto``: the dtype of frozen weights under an adapter.

    Args:
        plan: see :func:`with_precision`.
        trains: whether the weights are for training; others follow ``--precision``.

    Raises:
        UsageError: ``--weights bf16``, and there is no adapter to train.
    """
    settings = plan.settings
    adapted = bool(settings.lora_r) or source.adapter is not None
    if settings.weights == "bf16" and not adapted:
        raise UsageError(
            "--weights bf16 is for the frozen weights under an adapter, and this run trains all weights: a bf16 weight "
            "loses updates smaller than its rounding",
            hint="add --lora.r 16, or leave --weights out",
        )
    if settings.weights != "auto":
        return plan
    weights = "bf16" if adapted and trains and settings.precision == "bf16" else "fp32"
    return replace(plan, settings=_with(settings, weights=weights), origins={**plan.origins, "weights": FITTED})


def _with(settings: Settings, **values: Any) -> Settings:
    return Settings.model_validate({**settings.model_dump(exclude_unset=True), **values})
