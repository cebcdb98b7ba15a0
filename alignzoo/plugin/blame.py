"""Attributes an error to a plugin, with file and line."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import CodeType
from typing import Any

from alignzoo.errors import Escape
from alignzoo.plugin.discover import OWN_DISTRIBUTION
from alignzoo.plugin.faults import package_of, places
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry

CORE = "alignzoo"


def blame(error: BaseException) -> str | None:
    """The third-party plugin, file and line where an error came out of.

    None where the innermost code of alignzoo or of a plugin is alignzoo's: that it was called by a plugin does not
    make a failure of the core the plugin's.
    """
    plugins = _by_package()
    cause = error.__cause__ if isinstance(error, Escape) else error
    for package, place in places(cause or error):
        plugin = plugins.get(package)
        if package == CORE or (plugin is not None and plugin.distribution == OWN_DISTRIBUTION):
            return None
        if plugin is not None:
            return f"plugin {plugin.label}, {place}"
    return None


def place_in(error: BaseException, packages: Collection[str]) -> str:
    """`` (FILE:LINE, plugin NAME)`` of the innermost frame in these packages, the core's aside; empty without one."""
    cause = error.__cause__ if isinstance(error, Escape) else error
    for package, place in places(cause or error):
        if package in packages and package != CORE:
            return _named(place, package)
    return ""


def place_of(function: Callable[..., Any]) -> str:
    """`` (FILE:LINE, plugin NAME)`` of a function; empty where it is the core's, or has no source."""
    code: CodeType | None = getattr(function, "__code__", None)
    package = package_of(getattr(function, "__module__", None) or CORE)
    return _named(f"{code.co_filename}:{code.co_firstlineno}", package) if code and package != CORE else ""


def _named(place: str, package: str) -> str:
    plugin = _by_package().get(package)
    return f" ({place})" if plugin is None else f" ({place}, plugin {plugin.label})"


def _by_package() -> dict[str, Plugin]:
    """Top-level package -> the plugin whose code it is."""
    found: dict[str, Plugin] = {}
    for plugin in registry().plugins:
        targets = [getattr(card, "target", CORE) for card in (*plugin.methods, *plugin.extensions)]
        for module in (plugin.module, *targets):
            found.setdefault(package_of(module.partition(":")[0]), plugin)
    return found
