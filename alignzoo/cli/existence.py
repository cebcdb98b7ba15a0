"""Checks that what a plan names exists, without loading weights or using the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alignzoo.base.files import local_path
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.plan.conflicts import GUIDES
from alignzoo.plan.plan import Plan
from alignzoo.plugin.registry import registry


def check_existence(plan: Plan) -> tuple[list[AlignzooError], list[str]]:
    """What is missing for a plan's run, and what only the run itself can find out.

    Heavy libraries are imported only if needed: not for a plugin's model or data and the default optimizer.
    """
    settings = plan.settings
    problems: list[AlignzooError] = []
    unchecked: list[str] = []

    def look(check: Callable[[str], str | None], name: str, said: str = "") -> None:
        try:
            note = check(name)
        except AlignzooError as error:  # nothing has run yet, so this is a usage error
            problems.append(UsageError(f"{said}{error.message}", hint=error.hint))
        else:
            unchecked.extend([f"{said}{note}"] if note else [])

    known = registry()
    if known.named_extension("model", settings.model) is None:
        look(_model, settings.model)
    for flag in GUIDES:
        guide = getattr(settings, flag)
        if guide is not None and known.named_extension("model", guide) is None:
            look(partial(_model, flag=flag), guide)
    for data, source in (("data", settings.data), ("eval-data", settings.eval_data)):
        if source is not None and known.named_extension("data", source) is None:
            look(_data, source, said=f"--{data} ")
    if "optimizer" in plan.origins:
        look(_optimizer, settings.optimizer)
    return problems, unchecked


def _model(name: str, flag: str = "model") -> str | None:
    from alignzoo.model.source import find_model, is_hub_id

    if is_hub_id(name) and not local_path(name).exists():
        return f"--{flag} {name} is treated as a hub id; not checked"
    find_model(name, flag)
    return None


def _data(name: str) -> str | None:
    from alignzoo.data.sources import check_path, is_path

    if not is_path(name):
        return f"{name} is treated as a hub id; not checked"
    check_path(local_path(name))
    return None


def _optimizer(name: str) -> str | None:
    from alignzoo.train.optim import EIGHT_BIT, optimizer_class

    if name.lower() == EIGHT_BIT:
        return f"--optimizer {name} needs CUDA and bitsandbytes; not checked"
    optimizer_class(name)
    return None
