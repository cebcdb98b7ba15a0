"""Models that plugins bring by name."""

from __future__ import annotations

from pathlib import Path

from alignzoo.errors import BrokenPluginError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import guarded
from alignzoo.plugin.registry import registry


def place_of(name: str) -> str:
    """Where the model of that name is, if a plugin brings one; the name itself, a path or a hub id, otherwise.

    Raises:
        BrokenPluginError: the plugin does not say where.
    """
    card = registry().named_extension("model", name)
    if card is None:
        return name
    with guarded(
        f"model {card.name!r} ({card.target}) failed",
        error=BrokenPluginError,
        hint="repair its plugin, or name another --model",
    ):
        place = import_target(card)()
        if not isinstance(place, (str, Path)):
            raise TypeError(f"gave a {type(place).__name__}, expected a folder, a file or a hub id")
    return str(place)
