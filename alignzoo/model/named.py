"""Models that plugins bring by name."""

from __future__ import annotations

from pathlib import Path

from alignzoo.errors import AlignzooError, BrokenPluginError, contained
from alignzoo.plugin.build import import_target
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.registry import registry


def place_of(name: str) -> str:
    """Where the model of that name is, if a plugin brings one; the name itself, a path or a hub id, otherwise.

    Raises:
        BrokenPluginError: the plugin does not say where.
    """
    card = registry().named_extension("model", name)
    if card is None:
        return name
    try:
        with contained():
            place = import_target(card)()
            if not isinstance(place, (str, Path)):
                raise TypeError(f"gave a {type(place).__name__}, expected a folder, a file or a hub id")
    except AlignzooError:
        raise
    except Exception as error:
        raise BrokenPluginError(
            f"model {card.name!r} ({card.target}) failed: {describe_error(error)}",
            hint="repair its plugin, or name another --model",
        ) from error
    return str(place)
