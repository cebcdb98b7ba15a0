"""The objective of a step by its methods' names."""

from __future__ import annotations

from alignzoo import load_method
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.objective.objective import Objective


def objective(loss: str | PreferenceLoss = "dpo", *wrappers: str | RobustWrapper, coupled: bool = False) -> Objective:
    built = load_method("loss", loss) if isinstance(loss, str) else loss
    stack = [load_method("robust", w) if isinstance(w, str) else w for w in wrappers]
    return Objective(built, stack, coupled=coupled)
