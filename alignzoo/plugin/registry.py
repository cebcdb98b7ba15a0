"""Which methods there are: entry points, each loaded on its own, so that a broken plugin breaks only itself."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
from pydantic import ValidationError

from alignzoo.errors import BrokenPluginError, UsageError
from alignzoo.plugin import hookspecs
from alignzoo.plugin.card import KINDS, PLUGIN_API, Card, Composition, Kind, Options

ENTRY_POINT_GROUP = "alignzoo"


@dataclass
class Plugin:
    """One entry point: where it comes from, what it brings, or why it does not load."""

    distribution: str
    version: str
    entry_point: str
    module: str
    methods: list[Card | Composition] = field(default_factory=list)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "distribution": self.distribution,
            "version": self.version,
            "entry_point": self.entry_point,
            "module": self.module,
            "methods": [f"{method.kind}/{method.name}" for method in self.methods],
            "error": self.error,
        }

    def may_provide(self, name: str) -> bool:
        """Whether a plugin that failed to load looks like the home of method ``name``: by its names or its text."""
        if name in (self.distribution, self.entry_point):
            return True
        root = self.module.partition(".")[0]
        try:
            spec = importlib.util.find_spec(root)
        except (ImportError, ValueError):
            return False
        if spec is None or spec.origin is None:
            return False
        origin = Path(spec.origin)
        files = origin.parent.rglob("*.py") if spec.submodule_search_locations else [origin]
        words = (f'"{name}"', f"'{name}'")
        return any(word in file.read_text(encoding="utf-8", errors="replace") for file in files for word in words)


class Registry:
    """All plugins that were found, and look-up of methods by kind and name."""

    def __init__(self, plugins: list[Plugin]) -> None:
        self.plugins = plugins

    @property
    def broken(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.error is not None]

    def entries(self, kind: Kind | None = None) -> Iterator[tuple[Plugin, Card | Composition]]:
        """``(plugin, method)`` of one kind, or of all, by kind and then by name."""
        found = [(plugin, method) for plugin in self.plugins for method in plugin.methods]
        found.sort(key=lambda entry: (KINDS.index(entry[1].kind), entry[1].name))
        return (entry for entry in found if kind is None or entry[1].kind == kind)

    def distribution_of(self, method: Card | Composition) -> str:
        """Name of the distribution that brings a method."""
        return next(plugin.distribution for plugin in self.plugins if any(m is method for m in plugin.methods))

    def at_home(self, kind: Kind, name: str, distribution: str) -> str:
        """``distribution:name`` where that distribution brings such a method, else the bare name."""
        own = any(p.distribution == distribution and m.name == name for p, m in self.entries(kind))
        return f"{distribution}:{name}" if own else name

    def find(self, kind: Kind, name: str) -> Card | Composition:
        """The method called ``name`` (or ``distribution:name``).

        Raises:
            UsageError: unknown, with the nearest names; or two plugins bring the same name.
            BrokenPluginError: the plugin that seems to bring it does not load.
        """
        distribution, _, bare = name.rpartition(":")
        hits = [
            (plugin, method)
            for plugin, method in self.entries(kind)
            if bare in (method.name, *method.aliases) and distribution in ("", plugin.distribution)
        ]
        if len(hits) == 1:
            return hits[0][1]
        if hits:
            owners = [plugin.distribution for plugin, _ in hits]
            raise UsageError(
                f"{kind} {bare!r} is brought by {len(hits)} plugins: {', '.join(owners)}",
                hint="pick one: " + " or ".join(f"--{kind} {owner}:{bare}" for owner in owners),
            )
        for plugin in self.broken:
            if distribution == plugin.distribution or (not distribution and plugin.may_provide(bare)):
                raise BrokenPluginError(
                    f"{kind} {name!r} belongs to plugin {plugin.distribution} {plugin.version}, which does not load: "
                    f"{plugin.error}",
                    hint=f"upgrade or uninstall {plugin.distribution}; `alignzoo doctor` lists all plugins",
                )
        raise self._unknown(kind, name)

    def _unknown(self, kind: Kind, name: str) -> UsageError:
        names = [method.name for _, method in self.entries(kind)]
        elsewhere = [method.kind for _, method in self.entries() if method.name == name and isinstance(method, Card)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if elsewhere:
            hint = f"there is a {elsewhere[0]} of that name: --{elsewhere[0]} {name}"
        elif near:
            hint = f"did you mean {' or '.join(near)}?"
        else:
            hint = f"known: {', '.join(names)}"
        return UsageError(f"unknown {kind} {name!r}", hint=hint)


def _load(entry_point: importlib.metadata.EntryPoint) -> Plugin:
    """One entry point turned into a plugin; whatever goes wrong inside it is recorded, not raised."""
    dist = entry_point.dist
    plugin = Plugin(
        distribution=dist.name if dist else "unknown",
        version=dist.version if dist else "",
        entry_point=entry_point.name,
        module=entry_point.value.partition(":")[0],
    )
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(entry_point.load(), name=entry_point.name)
        methods = [method for result in manager.hook.alignzoo_methods() for method in result]
        for method in methods:
            if not isinstance(method, (Card, Composition)):
                raise TypeError(f"alignzoo_methods() gave a {type(method).__name__}, expected Card or Composition")
            if method.api > PLUGIN_API:
                raise RuntimeError(
                    f"{method.kind} {method.name!r} is made for plugin API {method.api}, "
                    f"this alignzoo speaks {PLUGIN_API}"
                )
        plugin.methods = methods
    except (Exception, SystemExit) as error:  # a stranger's code: anything can come out of it
        plugin.error = traceback.format_exception_only(error)[-1].strip()
    return plugin


@functools.cache
def registry() -> Registry:
    """The plugins of this environment, discovered once per process."""
    return Registry([_load(ep) for ep in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)])


def list_methods(kind: Kind | None = None) -> list[Card | Composition]:
    """Cards of all installed methods, or of one ``kind`` (``"loss"``, ``"robust"``, ``"geometry"``)."""
    return [method for _, method in registry().entries(kind)]


def build_options(card: Card, values: dict[str, Any]) -> Options:
    """Validated options of a method.

    Raises:
        UsageError: an unknown option (with the nearest name) or a value of the wrong type or out of its bounds.
    """
    unknown = [name for name in values if name not in card.options.model_fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(card.options.model_fields), n=3, cutoff=0.5)
        raise UsageError(
            f"{card.kind} {card.name!r} has no option {unknown[0]!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(card.options.model_fields)}",
        )
    try:
        return card.options.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            "; ".join(_explain(card, problem) for problem in error.errors()),
            hint=f"`alignzoo info {card.name}` lists the options with their bounds",
        ) from error


def _explain(card: Card, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    option = f"--{card.kind}.{where}" if where else f"{card.kind} {card.name!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{option}: {message[0].lower()}{message[1:]}" + (f" (got {problem['input']!r})" if where else "")


def instantiate(card: Card, options: Options) -> Any:
    """The method object of a card.

    Raises:
        BrokenPluginError: its target cannot be imported or built.
    """
    module, _, name = card.target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(options)
    except Exception as error:
        reason = traceback.format_exception_only(error)[-1].strip()
        raise BrokenPluginError(
            f"{card.kind} {card.name!r} cannot be built from {card.target}: {reason}",
            hint="`alignzoo doctor` lists all plugins and where they come from",
        ) from error


def load_method(kind: Kind, name: str, **options: Any) -> Any:
    """Build a method: ``load_method("loss", "dpo", beta=0.1)``.

    Returns a :class:`~alignzoo.interfaces.PreferenceLoss`, :class:`~alignzoo.interfaces.RobustWrapper` or
    :class:`~alignzoo.interfaces.GeometryController`.

    Raises:
        UsageError: unknown name or option, or a value out of bounds.
        BrokenPluginError: the plugin or its target does not load.
    """
    method = registry().find(kind, name)
    if isinstance(method, Composition):
        raise UsageError(
            f"{name!r} is a composition: {method.flags()}", hint="load its parts, or give it to `alignzoo run`"
        )
    return instantiate(method, build_options(method, options))
