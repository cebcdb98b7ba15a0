"""The registry of methods and extensions, with lookup by kind and name."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from alignzoo.base.shown import shown
from alignzoo.base.suggest import spellings, suggest
from alignzoo.contract.card import Card, Composition, Extension, ExtensionKind
from alignzoo.contract.judge import JudgeCard, as_method
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import BrokenPluginError, UnknownNameError, UsageError
from alignzoo.plugin.discover import discover
from alignzoo.plugin.faults import is_file
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.sources import Sources, current, plugin_words, sources

T = TypeVar("T")
_WORDS = {"observer": "--observe", "format": "--data.format", "command": "alignzoo", "evaluator": "evaluator"}
"""The word before a name of each kind on the command line, where it is not ``--KIND``."""

MOST_LISTED = 20
"""Names that an error lists."""


class Registry:
    """All discovered plugins, with lookup of what they provide."""

    def __init__(self, plugins: list[Plugin]) -> None:
        self.plugins = plugins

    @property
    def broken(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.error is not None]

    def entries(self, kind: str | None = None) -> Iterator[tuple[Plugin, Card | Composition]]:
        """``(plugin, method)`` of one kind, or of all, by kind and then by name."""
        return (entry for entry in self._entries if kind is None or entry[1].kind == kind)

    @functools.cached_property
    def _entries(self) -> list[tuple[Plugin, Card | Composition]]:
        place = {kind: i for i, kind in enumerate(KINDS)}
        found = [(plugin, method) for plugin in self.plugins for method in plugin.methods]
        return sorted(found, key=lambda entry: (place[entry[1].kind], entry[1].name))

    def extensions(self, kind: ExtensionKind) -> list[tuple[Plugin, Extension]]:
        """``(plugin, card)`` of one kind of extension, by name."""
        found = [(plugin, card) for plugin in self.plugins for card in plugin.extensions if card.kind == kind]
        return sorted(found, key=lambda entry: entry[1].name)

    def recipes(self) -> list[tuple[Plugin, str, Path]]:
        """``(plugin, name, file)`` of all recipes, by name."""
        found = [(plugin, name, path) for plugin in self.plugins for name, path in plugin.recipes.items()]
        return sorted(found, key=lambda entry: entry[1])

    def suites(self) -> list[tuple[Plugin, str, Path]]:
        """``(plugin, name, file)`` of all suites of prompts, by name."""
        found = [(plugin, name, path) for plugin in self.plugins for name, path in plugin.suites.items()]
        return sorted(found, key=lambda entry: entry[1])

    def duplicates(self) -> list[tuple[str, str, list[str]]]:
        """``(kind, name, distributions)`` of names that several plugins provide."""
        owners: dict[tuple[str, str], list[str]] = {}
        for plugin, method in self.entries():
            for name in (method.name, *method.aliases):
                owners.setdefault((method.kind, name), []).append(plugin.distribution)
        for plugin in self.plugins:
            for card in plugin.extensions:
                owners.setdefault((card.kind, card.name), []).append(plugin.distribution)
            for name in plugin.recipes:
                owners.setdefault(("recipe", name), []).append(plugin.distribution)
            for name in plugin.suites:
                owners.setdefault(("suite", name), []).append(plugin.distribution)
        return [(kind, name, homes) for (kind, name), homes in owners.items() if len(homes) > 1]

    def plugin_of(self, item: Card | Composition | Extension) -> Plugin:
        """The plugin that provides a method or an extension."""
        if isinstance(item, JudgeCard) and item.function:
            return next(plugin for plugin, card in self.extensions("judge") if card.target == item.target)
        return next(plugin for plugin in self.plugins if any(x is item for x in (*plugin.methods, *plugin.extensions)))

    def distribution_of(self, item: Card | Composition | Extension) -> str:
        """Name of the distribution that provides a method or an extension."""
        return self.plugin_of(item).distribution

    def at_home(self, kind: str, name: str, distribution: str) -> str:
        """``distribution:name`` if that distribution provides such a method, else the bare name."""
        own = any(p.distribution == distribution and m.name == name for p, m in self.entries(kind))
        return f"{distribution}:{name}" if own else name

    def find(self, kind: str, name: str) -> Card | Composition:
        """The method called ``name`` (or ``distribution:name``); a name takes precedence over an alias, and both over
        another trainer's spelling with underscores.

        Raises:
            UsageError: unknown, with the nearest names; or two plugins provide the same name.
            BrokenPluginError: the plugin that seems to provide it does not load.
        """
        distribution, _, bare = name.rpartition(":")
        at_home = [(p, m) for p, m in self.entries(kind) if distribution in ("", p.distribution)]
        hits: list[tuple[Plugin, Card | Composition]] = []
        for word in spellings(bare):
            hits = hits or [entry for entry in at_home if entry[1].name == word]
            hits = hits or [entry for entry in at_home if word in entry[1].aliases]
        if kind == "judge" and not hits:
            hits = [(plugin, as_method(card)) for plugin, card in self._named("judge", name)]
        found = self._only(kind, name, hits)
        if found is None:
            raise self._unknown(kind, name)
        return found

    def find_extension(self, kind: ExtensionKind, name: str) -> Extension:
        """The extension called ``name`` (or ``distribution:name``).

        Raises:
            UsageError, BrokenPluginError: as :meth:`find`.
        """
        found = self._only(kind, name, self._named(kind, name))
        if found is None:
            raise _not_there(kind, name, [card.name for _, card in self.extensions(kind)])
        return found

    def named_extension(self, kind: ExtensionKind, name: str | None) -> Extension | None:
        """The model or data called ``name`` (or ``distribution:name``); None if no plugin provides it, because a model
        or data may also be a path or a hub id.

        Raises:
            UsageError: two plugins provide the same name.
        """
        hits = self._named(kind, name) if name is not None else []
        return self._only(kind, str(name), hits) if hits else None

    def _named(self, kind: ExtensionKind, name: str) -> list[tuple[Plugin, Extension]]:
        distribution, _, bare = name.rpartition(":")
        entries = self.extensions(kind)
        return [(p, card) for p, card in entries if card.name == bare and distribution in ("", p.distribution)]

    def check_files(self) -> None:
        """Reject ``--plugin`` files that do not load.

        Raises:
            BrokenPluginError: names the first of them.
        """
        for plugin in self.broken:
            if plugin.file is not None:
                raise BrokenPluginError(
                    f"plugin {plugin.label} does not load: {plugin.error}",
                    hint=f"fix {plugin.file}, or leave it out",
                )

    def find_recipe(self, name: str) -> Path | None:
        """The file of the recipe called ``name`` (or ``distribution:name``), None if there is none.

        Raises:
            UsageError: two plugins provide the same name.
        """
        distribution, _, bare = name.rpartition(":")
        hits = [(p, path) for p, n, path in self.recipes() if n == bare and distribution in ("", p.distribution)]
        return self._only("recipe", name, hits)

    def find_suite(self, name: str) -> Path | None:
        """The file of the suite called ``name`` (or ``distribution:name``), None if there is none.

        Raises:
            UsageError: two plugins provide the same name.
        """
        distribution, _, bare = name.rpartition(":")
        hits = [(p, path) for p, n, path in self.suites() if n == bare and distribution in ("", p.distribution)]
        return self._only("suite", name, hits)

    def _only(self, kind: str, name: str, hits: Sequence[tuple[Plugin, T]]) -> T | None:
        """The one that was found; None if there is none and no broken plugin to blame."""
        distribution, _, bare = name.rpartition(":")
        if len(hits) > 1:
            owners = [plugin.distribution for plugin, _ in hits]
            raise UsageError(
                f"{kind} {bare!r} is provided by {len(hits)} plugins: {', '.join(owners)}",
                hint="pick one: " + " or ".join(f"{_WORDS.get(kind, f'--{kind}')} {owner}:{bare}" for owner in owners),
            )
        if hits:
            return hits[0][1]
        for plugin in self.broken if kind not in ("recipe", "suite") else ():
            if distribution == plugin.distribution or (not distribution and plugin.may_provide(bare)):
                raise BrokenPluginError(
                    f"{kind} {name!r} belongs to plugin {plugin.label}, which does not load: {plugin.error}",
                    hint=f"fix {plugin.file}"
                    if plugin.file
                    else f"upgrade or uninstall {plugin.distribution}; `alignzoo doctor` lists all plugins",
                )
        return None

    def _unknown(self, kind: str, name: str) -> UnknownNameError:
        elsewhere = [method.kind for _, method in self.entries() if method.name == name and isinstance(method, Card)]
        if elsewhere:
            hint = f"did you mean the {elsewhere[0]} of that name: --{elsewhere[0]} {name}?"
            return UnknownNameError(f"unknown {kind} {name!r}", hint=hint)
        methods: list[Card | Composition | Extension] = [method for _, method in self.entries(kind)]
        methods += [card for _, card in self.extensions("judge")] if kind == "judge" else []
        aliases = [alias for _, method in self.entries(kind) for alias in method.aliases]
        return _not_there(kind, name, [method.name for method in methods], aliases)


def _not_there(kind: str, name: str, known: list[str], aliases: Sequence[str] = ()) -> UnknownNameError:
    known = list(dict.fromkeys(known))
    listed = f"known: {', '.join(known)}" if known else f"no plugin provides one: `alignzoo ls {kind}`"
    if len(known) > MOST_LISTED:
        listed = f"`alignzoo ls {kind}` lists all {len(known)}"
    if kind in KINDS:
        listed += f"; `alignzoo new {kind} NAME` creates one"
    return UnknownNameError(f"unknown {kind} {shown(name)}", hint=suggest(name, [*known, *aliases]) or listed)


def resume_words(folder: Path, *, trusting: bool) -> str:
    """The command line that resumes the run in a folder.

    Args:
        trusting: it was started with ``--trust-remote-code``.
    """
    trust = " --trust-remote-code" if trusting else ""
    return f"alignzoo run --resume {shlex.quote(str(folder))}{plugin_words()}{trust}"


@contextlib.contextmanager
def plugins_from(*files: str | Path, third_party: bool = True) -> Iterator[None]:
    """Inside, :func:`registry` also knows the plugins in ``files``; without ``third_party`` it knows nothing else but
    alignzoo's own.

    ::

        with plugins_from("my_loss.py"):
            alignzoo.run({"loss": "mine"})
    """
    once = {Path(file).resolve(): Path(file) for file in files}
    token = current.set(Sources(third_party, tuple(once.values())))
    try:
        yield
    finally:
        current.reset(token)


def registry() -> Registry:
    """The plugins of this environment, discovered once per process and set of :class:`Sources`.

    Raises:
        BrokenPluginError: ``ALIGNZOO_STRICT_PLUGINS=1``, and a plugin is broken or has something to repair.
        UsageError: a file of ``--plugin`` is not there.
    """
    now = sources()
    found = _discovered(now.third_party, tuple((path, _modified(path)) for path in now.files))
    if os.environ.get("ALIGNZOO_STRICT_PLUGINS", "0") not in ("", "0"):
        _refuse_faults(found)
    return found


@functools.cache
def _discovered(third_party: bool, files: tuple[tuple[Path, int], ...]) -> Registry:
    return Registry(discover(third_party=third_party, files=[path for path, _ in files]))


def _modified(path: Path) -> int:
    """So that an edited file is reloaded within one process, as in a notebook."""
    return path.stat().st_mtime_ns if is_file(path) else 0


def _refuse_faults(found: Registry) -> None:
    faults = [
        f"{plugin.label}: {text}" for plugin in found.plugins for text in (plugin.error, *plugin.warnings) if text
    ]
    faults += [f"{kind} {name!r} is provided by {', '.join(homes)}" for kind, name, homes in found.duplicates()]
    if faults:
        raise BrokenPluginError(
            "\n  ".join(["plugin problems (ALIGNZOO_STRICT_PLUGINS is set):", *faults]),
            hint="fix or uninstall them, or unset ALIGNZOO_STRICT_PLUGINS",
        )


def list_methods(kind: str | None = None) -> list[Card | Composition]:
    """Cards of all installed methods, or of one ``kind`` (``"loss"``, ``"robust"``, ``"geometry"``, ``"reward"``)."""
    return [method for _, method in registry().entries(kind)]
