"""Whether the ranks of a launch load a plan's policy straight into shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.plan.plan import Plan
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

    from alignzoo.model.source import ModelSource


def policy_in_shards(plan: Plan, source: ModelSource, accelerator: Accelerator, report: Reporter) -> Any:
    """The policy, of which no rank ever holds all weights; None, after a note, if it must be loaded whole first."""
    from alignzoo.model.streamed import MustBeWhole, Skeleton, sharded_policy, skeleton_of

    made: list[Skeleton] = []

    def reason() -> str | None:
        why = _reads_whole(plan)
        if why is None:
            try:
                made.append(skeleton_of(source, plan.settings))
            except MustBeWhole as error:
                why = str(error)
        return why

    reasons = [why for why in on_all_ranks(accelerator, reason) if why is not None]
    if reasons:
        report.note(f"{plan.settings.model} is loaded whole on every rank before it is sharded: {reasons[0]}")
        return None
    return sharded_policy(made[0], source, plan.settings, accelerator.device)


def _reads_whole(plan: Plan) -> str | None:
    """What of the plan runs the policy on each rank by itself before training, in words."""
    for method in plan.of("selector"):
        if getattr(method.card, "loads", False):
            return f"selector {method.card.name!r} runs it on its own"
    for method in plan.of("reward"):
        return f"reward {method.card.name!r} may run it on its own"
    return None
