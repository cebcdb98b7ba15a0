"""Methods by the names that a user types: ``dpo``, an alias, ``loss:dpo`` or ``distribution:dpo``."""

from __future__ import annotations

from alignzoo.base.suggest import spellings, suggest
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
    at_home = [entry for entry in registry().entries(kind) if before in ("", entry[0].distribution)]
    found = ([entry for entry in at_home if word in (entry[1].name, *entry[1].aliases)] for word in spellings(bare))
    return next(filter(None, found), [])


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
        raise UsageError(f"{name!r} is {article} {' and '.join(named)}, not a method", hint=f"see {shown}")
    within = before if before in KINDS else kind
    known = {word for _, method in registry().entries(within) for word in (method.name, *method.aliases)}
    sought = bare if before in KINDS else name
    hint = suggest(sought, sorted(known)) or "`alignzoo ls` lists the methods"
    raise UsageError(f"unknown {within or 'method'} {name!r}", hint=hint)
