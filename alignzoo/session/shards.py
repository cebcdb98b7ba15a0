"""Whether the ranks of a launch load a model straight into shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alignzoo.distributed.launch import distributed_backend
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.plan.plan import Plan
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

    from alignzoo.model.source import ModelSource


def policy_in_shards(plan: Plan, source: ModelSource, accelerator: Accelerator, report: Reporter) -> Any:
    """The policy, of which no rank ever holds all weights; None if it must be loaded whole first, after a note, and
    where the launch does not shard it."""
    settings = plan.settings
    return _in_shards(str(settings.model), source, settings, accelerator, report, lambda: _reads_whole(plan))


def guide_in_shards(
    name: str, source: ModelSource, settings: Settings, accelerator: Accelerator, report: Reporter
) -> Any:
    """The same of a guide model."""
    merged = "its adapter is merged into it" if source.adapter is not None else None
    return _in_shards(name, source, settings, accelerator, report, lambda: merged)


def _in_shards(
    name: str,
    source: ModelSource,
    settings: Settings,
    accelerator: Accelerator,
    report: Reporter,
    reads_whole: Callable[[], str | None],
) -> Any:
    if distributed_backend() != "fsdp":
        return None
    from alignzoo.model.streamed import MustBeWhole, Skeleton, sharded_policy, skeleton_of

    made: list[Skeleton] = []

    def reason() -> str | None:
        why = reads_whole()
        if why is None:
            try:
                made.append(skeleton_of(source, settings))
            except MustBeWhole as error:
                why = str(error)
        return why

    reasons = [why for why in on_all_ranks(accelerator, reason) if why is not None]
    if reasons:
        report.note(f"{name} is loaded whole on every rank before it is sharded: {reasons[0]}")
        return None
    return sharded_policy(made[0], source, settings, accelerator.device)


def _reads_whole(plan: Plan) -> str | None:
    """What of the plan runs the policy on each rank by itself before training, in words."""
    for method in plan.of("selector"):
        if getattr(method.card, "loads", False):
            return f"selector {method.card.name!r} runs it on its own"
    for method in plan.of("reward"):
        return f"reward {method.card.name!r} may run it on its own"
    return None
