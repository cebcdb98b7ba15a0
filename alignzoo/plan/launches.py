"""Launches that a plan cannot run on."""

from __future__ import annotations

from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.plan.plan import Plan

UNSUPPORTED = {
    "fsdp1": ("FSDP 1", "it flattens weights, so controllers cannot tell them apart"),
    "deepspeed": ("DeepSpeed", "its backward pass steps the optimizer, but a controller may need several"),
}
"""Unsupported launches, with name and reason."""
WHOLE_WEIGHTS_ONLY = ("adafactor", "rprop", "adamw8bit")
"""Optimizers that fail or are untested on FSDP2 shards."""


def launch_conflicts(plan: Plan, distributed: str) -> list[AlignzooError]:
    """What does not run on this launch's ranks."""
    if distributed in UNSUPPORTED:
        name, why = UNSUPPORTED[distributed]
        return [
            IncompatibleError(
                f"runs under {name} are not supported: {why}",
                hint="shard with FSDP2 instead: alignzoo run --devices N --parallel fsdp2; without any sharding, "
                "--parallel ddp",
            )
        ]
    if distributed != "fsdp":
        if plan.settings.offload == "none":
            return []
        return [
            UsageError(
                "--offload weights needs sharded weights (FSDP2), and this launch does not shard them",
                hint="launch two or more ranks with --devices N --parallel fsdp2, or leave it out",
            )
        ]
    problems: list[AlignzooError] = []
    if plan.settings.quantize != "none":
        problems.append(
            IncompatibleError(
                f"--quantize {plan.settings.quantize} is untested on sharded weights",
                hint="use plain data parallelism (--parallel ddp), or leave it out",
            )
        )
    if plan.settings.compile:
        problems.append(IncompatibleError("--compile is untested on sharded weights (FSDP2)", hint="leave it out"))
    optimizer = plan.settings.optimizer.lower()
    if optimizer in WHOLE_WEIGHTS_ONLY:
        problems.append(
            IncompatibleError(
                f"--optimizer {optimizer} does not support sharded weights",
                hint="choose another, such as adamw, or launch with plain data parallelism",
            )
        )
    return problems
