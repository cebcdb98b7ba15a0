"""A method's modules in another process: by name where they can be found, by path where a file was loaded as it is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

Source = tuple[str, "str | None"]
"""A module's name, and its file where the name alone does not find it."""


_LOADED: dict[str, int] = {}
"""Files loaded here, with the time of their last change: an edited one is reloaded."""


def sources(names: Iterable[str]) -> list[Source]:
    """How another process with this one's ``sys.path`` gets these modules."""
    return [(name, _unfindable_file(name)) for name in dict.fromkeys(names)]


def load(wanted: Iterable[Source]) -> None:
    """Import modules as :func:`sources` describes them.

    Raises:
        ImportError: one of them cannot be imported.
    """
    for name, path in wanted:
        if path is None:
            importlib.import_module(name)
            continue
        edited = Path(path).stat().st_mtime_ns
        if name in sys.modules and _LOADED.get(name) == edited:
            continue
        _LOADED[name] = edited
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"no module {name!r} in {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def search_path() -> list[str]:
    """Where this Python looks for modules, as another one in any folder would have to."""
    return [path or str(Path.cwd()) for path in sys.path]


def environment(**extra: str) -> dict[str, str]:
    """The environment for another Python that is to find what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search_path()), **extra}


def _unfindable_file(name: str) -> str | None:
    """The file of a module that was loaded here but that its name does not lead to."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None or "." in name:  # packages and their parts are found by name
        return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, None) if find else None
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == Path(file).resolve():
            return None
    return str(file)
