"""What can be wrong with a plan before a model, data or other ranks are there."""

from __future__ import annotations

from alignzoo.distributed.launch import check_shares
from alignzoo.plan.plan import Plan


def check_start(plan: Plan, world: int) -> None:
    """Refuse a plan whose optimizer or methods cannot be imported, or whose batches ``world`` ranks cannot share.

    Raises:
        AlignzooError: they are not.
    """
    from alignzoo.plugin.build import class_of
    from alignzoo.train.optim import optimizer_class

    optimizer_class(plan.settings.optimizer)
    check_shares(plan.settings.batch_size, world)
    for method in plan.all_methods:
        class_of(method.card)
