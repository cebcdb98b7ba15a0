"""Methods by the names that a user types: ``dpo``, an alias, ``loss:dpo`` or ``distribution:dpo``."""

from __future__ import annotations

from alignzoo.base.suggest import suggest
from alignzoo.contract.card import EXTENSION_KINDS, Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import AlignzooError, BrokenPluginError, UsageError
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

Entry = tuple[Plugin, "Card | Composition"]


def methods_named(name: str, kind: str | None = None) -> list[Entry]:
    """All methods of that name; several kinds or plugins may have one. Empty if there is none."""
    before, _, bare = name.rpartition(":")
    if before in KINDS:
        kind, before = before, ""
    return [
        (plugin, method)
        for plugin, method in registry().entries(kind)
        if bare in (method.name, *method.aliases) and before in ("", plugin.distribution)
    ]


def find_methods(name: str, kind: str | None = None) -> list[Entry]:
    """The same, at least one.

    Raises:
        UsageError: there is none; with what was probably meant.
        BrokenPluginError: a plugin that does not load may have it.
    """
    found = methods_named(name, kind)
    if found:
        return found
    before, _, bare = name.rpartition(":")
    for one in (kind,) if kind else KINDS:
        try:
            registry().find(one, name)
        except BrokenPluginError:
            raise
        except AlignzooError:
            continue
    if named := [one for one in EXTENSION_KINDS if any(card.name == bare for _, card in registry().extensions(one))]:
        article = "an" if named[0][0] in "aeiou" else "a"
        shown = ", ".join(f"`alignzoo ls {one}`" for one in named)
        raise UsageError(f"{name!r} is {article} {', '.join(named)}, not a method", hint=f"see {shown}")
    within = before if before in KINDS else kind
    known = {method.name for _, method in registry().entries(within)}
    sought = bare if before in KINDS else name
    hint = suggest(sought, sorted(known)) or "`alignzoo ls` lists the methods"
    raise UsageError(f"unknown {within or 'method'} {name!r}", hint=hint)
