"""Plugin discovery: loads each entry point, and each ``--plugin`` file, in isolation.

Whatever goes wrong inside one is recorded on it and breaks nothing else; an import that would slow every command down
is recorded as well.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from alignzoo.contract.card import PluginAPIError
from alignzoo.errors import UsageError, contained
from alignzoo.plugin.declared import ask, reserved
from alignzoo.plugin.faults import describe_error, is_file, package_of, places
from alignzoo.plugin.plugin import OWN_DISTRIBUTION, Plugin

ENTRY_POINT_GROUP = "alignzoo"
HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets")
"""What a plugin's module must not import; ``alignzoo.lazy`` and a card's ``target`` put it off."""


def discover(*, third_party: bool, files: Iterable[Path]) -> list[Plugin]:
    """All plugins of this environment, and those of the given files.

    Args:
        third_party: whether to look beyond alignzoo's own distribution.
    """
    found = []
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = entry_point.dist
        name, version = (dist.name or "unknown", dist.version or "") if dist else ("unknown", "")
        if third_party or name == OWN_DISTRIBUTION:
            plugin = Plugin(name, version, entry_point.name, entry_point.value.partition(":")[0])
            found.append((plugin, entry_point.load))
    # alignzoo first, then by name: neither the file system's order nor a plugin's import may change what others see
    found.sort(
        key=lambda entry: (entry[0].distribution != OWN_DISTRIBUTION, entry[0].distribution, entry[0].entry_point)
    )
    loaded = [_load(plugin, load) for plugin, load in found]
    loaded += [_from_file(path) for path in files]
    _keep_own_names(loaded)
    return loaded


def _keep_own_names(plugins: Iterable[Plugin]) -> None:
    """A command or layout that alignzoo's own plugins bring keeps its name, like a command of the core."""
    own: set[tuple[str, str]] = set()
    for plugin in plugins:
        cards = [card for card in plugin.extensions if card.kind in ("command", "format")]
        if plugin.distribution == OWN_DISTRIBUTION:
            own.update((card.kind, card.name) for card in cards)
            continue
        for card in cards:
            if (card.kind, card.name) in own:
                plugin.warnings.append(reserved(card))
                plugin.extensions.remove(card)


def _from_file(path: Path) -> Plugin:
    """A plugin that is one file; its module has the file's name.

    Raises:
        UsageError: there is no such file, or its name is that of another module.
    """
    if not is_file(path):
        raise UsageError(f"--plugin {path}: no such file", hint="use the path of a Python file that contains a plugin")
    path = path.resolve()
    module = re.sub(r"\W", "_", path.stem)
    loaded = sys.modules.get(module)
    taken = loaded.__spec__ if loaded is not None else importlib.util.find_spec(module)
    if (loaded is not None or taken is not None) and Path(getattr(taken, "origin", None) or "?").resolve() != path:
        raise UsageError(f"--plugin {path}: another module is called {module!r}", hint="rename the file")
    plugin = Plugin(path.name, "", module, module, file=path)

    def load() -> ModuleType:
        spec = importlib.util.spec_from_file_location(module, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path.name} is not a Python file")
        made = importlib.util.module_from_spec(spec)
        sys.modules[module] = made
        try:
            spec.loader.exec_module(made)
        except BaseException:
            del sys.modules[module]
            raise
        return made

    return _load(plugin, load)


def _load(plugin: Plugin, load: Callable[[], Any]) -> Plugin:
    """Import a plugin and ask its hooks; whatever goes wrong inside it is recorded, not raised."""
    began, before = time.perf_counter(), set(sys.modules)
    try:
        with contained(), contextlib.redirect_stdout(sys.stderr):  # stdout is for results, so prints go elsewhere
            ask(plugin, load())
    except Exception as error:  # third-party code can raise anything
        plugin.error = describe_error(error) + _place(error, plugin)
        plugin.methods, plugin.extensions, plugin.recipes, plugin.suites = [], [], {}, {}
    plugin.seconds = time.perf_counter() - began
    heavy = _heavy_imports(set(sys.modules) - before)
    if heavy:
        plugin.warnings.append(
            f"imports {heavy} at discovery, which slows down every command: import it from alignzoo.lazy, "
            "or in the module that a card's target names"
        )
    return plugin


def _place(error: BaseException, plugin: Plugin) -> str:
    """`` (FILE:LINE)`` of the innermost frame in the plugin, where the error does not say it itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, (SyntaxError, PluginAPIError)):
        return ""
    found = (place for package, place in places(error) if package == package_of(plugin.module))
    return next((f" ({place})" for place in found), "")


def _heavy_imports(new: set[str]) -> str | None:
    """The first heavy module that the modules ``new`` brought, or hold although another plugin brought it before."""
    for name in HEAVY:
        module = sys.modules.get(name)
        if module is None:
            continue
        holders = (vars(sys.modules[n]) for n in new if n in sys.modules and n.partition(".")[0] not in HEAVY)
        if name in new or any(value is module for names in holders for value in list(names.values())):
            return name
    return None
