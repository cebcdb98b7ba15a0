"""Finding plugins: each entry point, and each file given by ``--plugin``, is loaded on its own.

Whatever goes wrong inside one is recorded on it and breaks nothing else. What would slow every command down or go
unnoticed (a heavy import, a hook whose name is misspelled) is recorded as well.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from alignzoo.errors import Escape, UsageError, contained
from alignzoo.plugin import hookspecs
from alignzoo.plugin.card import Card, Composition, Extension, PluginAPIError

ENTRY_POINT_GROUP = "alignzoo"
OWN_DISTRIBUTION = "alignzoo"
SLOW_SECONDS = 1.0
"""A plugin that takes longer to load is named: every command waits for it."""
HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets")
"""What a plugin's module must not import; ``alignzoo.lazy`` and a card's ``target`` put it off."""
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("alignzoo_"))
OWN_COMMANDS = ("run", "ls", "info", "compat", "check", "new", "probe", "sharpness", "recipes", "doctor")
"""alignzoo's own commands; a plugin cannot take their place."""
_EXTENSION_OF = {
    "alignzoo_commands": "command",
    "alignzoo_observers": "observer",
    "alignzoo_formats": "format",
    "alignzoo_judges": "judge",
}


@dataclass
class Plugin:
    """One entry point or file: where it comes from, what it brings, or why it does not load.

    Attributes:
        distribution: its distribution; for a file, the file's name.
        file: the file it was loaded from with ``--plugin``, else None.
        recipes: recipe name -> YAML file.
        error: why nothing of it can be used.
        warnings: what its author should repair; how long it took is not in it, for that depends on the machine.
        seconds: wall-clock time that loading took.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    methods: list[Card | Composition] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    recipes: dict[str, Path] = field(default_factory=dict)
    file: Path | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _fingerprint: str | None = field(default=None, repr=False)

    @property
    def slow(self) -> str | None:
        """What to say of a plugin that every command waits for."""
        return (
            f"took {self.seconds:.1f} s to load, and every command waits for it"
            if self.seconds > SLOW_SECONDS
            else None
        )

    @property
    def remarks(self) -> list[str]:
        """Everything its author should look at, short of what breaks it."""
        return [*self.warnings, *([self.slow] if self.slow else [])]

    @property
    def label(self) -> str:
        """Distribution and version, as messages name it."""
        return f"{self.distribution} {self.version}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        return {
            "distribution": self.distribution,
            "version": self.version,
            "entry_point": self.entry_point,
            "module": self.module,
            "file": str(self.file) if self.file else None,
            "methods": [f"{method.kind}/{method.name}" for method in self.methods],
            "extensions": [f"{card.kind}/{card.name}" for card in self.extensions],
            "recipes": sorted(self.recipes),
            "error": self.error,
            "warnings": self.remarks,
            "seconds": round(self.seconds, 3),
        }

    def identity(self) -> dict[str, Any]:
        """What a run records of a plugin that it uses."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "entry_point": self.entry_point,
            "file": str(self.file) if self.file else None,
            "hash": self.fingerprint(),
        }

    def files(self) -> list[Path]:
        """The Python and YAML files of the plugin's package, or its one file."""
        return [path for _, path in self._named_files()]

    def _named_files(self) -> list[tuple[str, Path]]:
        """The files with their places inside the plugin; what cannot be looked at is left out."""
        if self.file is not None:
            return [(self.file.name, self.file)]
        try:
            spec = importlib.util.find_spec(self.module.partition(".")[0])
        except (ImportError, ValueError):
            return []
        if spec is None:
            return []
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        if not folders:
            return [(Path(spec.origin).name, Path(spec.origin))] if spec.origin else []
        return sorted(
            (str(path.relative_to(folder)), path)
            for folder in folders
            for path in folder.rglob("*")
            if path.suffix in (".py", ".yaml") and path.is_file()
        )

    def fingerprint(self) -> str:
        """A hash over those files: 16 hexadecimal digits."""
        if self._fingerprint is None:
            total = hashlib.sha256()
            for name, path in self._named_files():
                try:
                    content = path.read_bytes()
                except OSError:
                    content = b"unreadable"
                total.update(f"{name}\0{len(content)}\0".encode())
                total.update(content)
            self._fingerprint = total.hexdigest()[:16]
        return self._fingerprint

    def may_provide(self, name: str) -> bool:
        """Whether a plugin that failed to load looks like the home of ``name``: by its names or its text. A file that
        was given on the command line always does."""
        if self.file is not None or name in (self.distribution, self.entry_point):
            return True
        words = (f'"{name}"', f"'{name}'")
        for path in self.files():
            with contextlib.suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                if any(word in text for word in words):
                    return True
        return False


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
    return [*loaded, *(_from_file(path) for path in files)]


def _from_file(path: Path) -> Plugin:
    """A plugin that is one file; its module has the file's name.

    Raises:
        UsageError: there is no such file, or its name is that of another module.
    """
    if not is_file(path):
        raise UsageError(f"--plugin {path}: no such file", hint="give the path of a Python file with a plugin in it")
    path = path.resolve()
    module = re.sub(r"\W", "_", path.stem)
    loaded = sys.modules.get(module)
    taken = loaded.__spec__ if loaded is not None else importlib.util.find_spec(module)
    if (loaded is not None or taken is not None) and Path(getattr(taken, "origin", None) or "?").resolve() != path:
        raise UsageError(
            f"--plugin {path}: there is another module called {module!r}", hint="give the file a name of its own"
        )
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
        with contained(), contextlib.redirect_stdout(sys.stderr):  # stdout is for data: prints must not spoil it
            _ask(plugin, load())
    except Exception as error:  # a stranger's code: anything can come out of it
        plugin.error = describe_error(error)
        plugin.methods, plugin.extensions, plugin.recipes = [], [], {}
    plugin.seconds = time.perf_counter() - began
    heavy = _heavy_imports(set(sys.modules) - before)
    if heavy:
        plugin.warnings.append(
            f"imports {heavy} when it is looked for, and every command pays for that: import it from alignzoo.lazy, "
            "or in the module that a card's target names"
        )
    return plugin


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


def _ask(plugin: Plugin, module: Any) -> None:
    """Call every hook the plugin has, and keep what it declares."""
    _check_hook_names(module)
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin.entry_point)
    asked = [name for name in HOOKS if getattr(manager.hook, name).get_hookimpls()]
    if not asked:
        plugin.warnings.append(f"brings nothing: none of its functions is a hook ({', '.join(HOOKS)})")
    for name in asked:
        _keep(plugin, name, _declared(manager, name))
    if asked and not (plugin.methods or plugin.extensions or plugin.recipes or plugin.warnings):
        plugin.warnings.append(f"brings nothing: {', '.join(asked)} gave no card; a hook returns a list")


def _declared(manager: pluggy.PluginManager, name: str) -> list[Any]:
    """What a hook gives."""
    try:
        with contained():
            results = getattr(manager.hook, name)()
            for result in results:
                if isinstance(result, (str, Path, BaseModel)):
                    raise TypeError(f"a hook returns a list, this gave a single {type(result).__name__}")
            return [item for result in results for item in result]
    except PluginAPIError:
        raise
    except Exception as error:
        raise RuntimeError(f"{name}() failed: {describe_error(error)}") from error


def _check_hook_names(module: Any) -> None:
    """A hook that would never be called: its name is misspelled, or it is not marked."""
    for name in dir(module):
        value = getattr(module, name, None)
        if not inspect.isroutine(value):  # not even looked into: a lazy module would be imported
            continue
        marked = hasattr(value, f"{ENTRY_POINT_GROUP}_impl")
        if marked and name not in HOOKS:
            near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.5)
            known = f"did you mean {near[0]}?" if near else f"hooks: {', '.join(HOOKS)}"
            raise NameError(f"there is no hook {name!r}; {known}")
        if not marked and name in HOOKS:
            raise NameError(f"{name} is not marked with @hookimpl, so it would never be called")


def _keep(plugin: Plugin, hook: str, given: list[Any]) -> None:
    if hook == "alignzoo_recipes":
        paths = [Path(path) for path in given]
        for path in paths:
            if not path.is_absolute():
                raise ValueError(f"{hook}() names {path}; give a whole path: Path(__file__).with_name(...)")
            if not is_file(path):
                raise FileNotFoundError(f"{hook}() names {path}, which is not a file")
        _check_twice([("recipe", path.stem) for path in paths])
        plugin.recipes = {path.stem: path for path in paths}
        return
    if hook == "alignzoo_methods":
        for method in given:
            if not isinstance(method, (Card, Composition)):
                raise TypeError(f"{hook}() gave a {type(method).__name__}, expected Card or Composition")
            if isinstance(method, Card):
                _check_defaults(method)
        plugin.methods = given
        _check_twice([(method.kind, name) for method in given for name in (method.name, *method.aliases)])
        return
    for card in given:
        if not isinstance(card, Extension):
            raise TypeError(f"{hook}() gave a {type(card).__name__}, expected Extension")
        if card.kind != _EXTENSION_OF[hook]:
            raise ValueError(f"{hook}() gave {card.name!r} of kind {card.kind}, expected {_EXTENSION_OF[hook]}")
    for card in given:
        if card.name in _reserved(card.kind):
            plugin.warnings.append(f"reserved: {card.name!r} is a {card.kind} of alignzoo, and this one is left out")
        else:
            plugin.extensions.append(card)
    _check_twice([(card.kind, card.name) for card in given])


def _reserved(kind: str) -> Collection[str]:
    """Names that a plugin cannot take, because the built-in ones are not looked up among plugins."""
    if kind == "command":
        return OWN_COMMANDS
    if kind == "format":
        from alignzoo.data.formats import LAYOUTS

        return LAYOUTS
    return ()


def _check_defaults(card: Card) -> None:
    """What listings and plans ask of an options model must not fail there, where nobody knows whose it is.

    Raises:
        ValueError: the defaults do not build for another reason than a missing value, or cannot be written to a plan.
    """
    try:
        with contained():
            options = card.options()
            options.needs()
            options.model_dump(mode="json")
    except ValidationError as error:
        if any(problem["type"] != "missing" for problem in error.errors()):
            raise
    except Exception as error:
        raise ValueError(f"{card.kind} {card.name!r}: its options fail: {describe_error(error)}") from error


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have, or a place one may not look into, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _check_twice(names: list[tuple[str, str]]) -> None:
    for kind, name in names:
        if names.count((kind, name)) > 1:
            raise ValueError(f"{kind} {name!r} is declared twice")


def describe_error(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, p['loc'])) or 'value'}: {p['msg']}" for p in error.errors())
        return f"invalid {error.title}: {'; '.join(problems)}"
    if isinstance(error, (PluginAPIError, Escape)):
        return str(error)
    return " ".join(traceback.format_exception_only(error)[-1].split())
