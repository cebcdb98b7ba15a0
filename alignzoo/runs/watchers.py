"""A run's observers and trackers; missing or broken ones are rejected before it starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from alignzoo.errors import BrokenPluginError, UsageError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import guarded
from alignzoo.plugin.registry import registry


def observers_of(names: Sequence[str]) -> dict[str, Any]:
    """The observers that were asked for, built.

    Raises:
        BrokenPluginError: one of them cannot be built: it was asked for, so the run does not begin without it.
    """
    built = {}
    for name in names:
        card = registry().find_extension("observer", name)
        with guarded(
            f"observer {name!r} cannot be built from {card.target}",
            error=BrokenPluginError,
            hint="fix its plugin, or leave it out of --observe",
            passes=(BrokenPluginError,),
        ):
            built[name] = import_target(card)()
    return built


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        UsageError: one is missing.
    """
    for name in names:
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(importlib.util.find_spec(module) for module in modules):
            raise UsageError(
                f"--track {name} needs a package that is not installed", hint=f"pip install 'alignzoo[{name}]'"
            )
