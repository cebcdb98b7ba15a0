"""The accelerator of this process."""

from __future__ import annotations

import contextlib
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from alignzoo.distributed.launch import adopt_slurm, distributed_backend
from alignzoo.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(hours=2)
"""How long ranks wait for one another. The first one alone writes models, generates answers and asks judges, for longer
than NCCL's ten minutes; a launcher ends the others when one has ended."""


def launched(*, precision: str = "fp32", **options: Any) -> Accelerator:
    """The accelerator of this launch; the loop owns accumulation.

    Args:
        precision: ``fp32`` or ``bf16``.
        options: more words for ``accelerate.Accelerator``.
    """
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs

    adopt_slurm()
    handlers: list[Any] = []
    if distributed_backend() != "none":
        # Shards may be in host memory, in this run or a later stage: a process has one group, from its first run on.
        both = {"backend": "cuda:nccl,cpu:gloo"} if distributed_backend() == "fsdp" and not _on_cpu() else {}
        handlers.append(InitProcessGroupKwargs(timeout=PATIENCE, **both))
    if distributed_backend() == "fsdp":  # the cache would keep a bf16 copy of every gathered weight through the forward
        handlers.append(AutocastKwargs(cache_enabled=False))
    mixed = "bf16" if precision == "bf16" else "no"
    _forget_other_precision(mixed)
    options |= {"kwargs_handlers": handlers} if handlers else {}
    return Accelerator(cpu=_on_cpu(), gradient_accumulation_steps=1, mixed_precision=mixed, **options)


def alone(command: str) -> Accelerator:
    """The accelerator of a command that works in one process, in fp32.

    Raises:
        UsageError: it was launched with several.
    """
    accelerator = launched()
    if accelerator.num_processes > 1:
        raise UsageError(f"{command} works in one process", hint="start it without torchrun or accelerate launch")
    return accelerator


def leave_group(*, failed: bool) -> None:
    """Leave the other ranks at the end of the process, if there are any.

    Args:
        failed: do not wait for the others, some of which may be gone.
    """
    group: Any = sys.modules.get("torch.distributed")
    with contextlib.suppress(Exception):  # the work is done, and its outcome reported; or torch is half imported
        if group is None or not group.is_initialized():
            return
        if failed:
            group.distributed_c10d._abort_process_group()
        else:
            group.destroy_process_group()


def _on_cpu() -> bool:
    """Several ranks where there are CPUs only: accelerate must be told, or each of them runs alone."""
    import torch

    return distributed_backend() != "none" and not torch.accelerator.is_available()


def _forget_other_precision(precision: str) -> None:
    """accelerate keeps one precision per process; runs after one another may differ in theirs."""
    from accelerate.state import AcceleratorState

    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
