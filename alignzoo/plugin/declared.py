"""Reads what a plugin's hooks declare, and catches mistakes that would otherwise go unnoticed or fail elsewhere."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from alignzoo.base.suggest import suggest
from alignzoo.contract.card import Card, Composition, Extension, PluginAPIError
from alignzoo.errors import contained
from alignzoo.plugin import hookspecs
from alignzoo.plugin.faults import describe_error, is_file
from alignzoo.plugin.plugin import OWN_DISTRIBUTION, Plugin

PROJECT = "alignzoo"
"""pluggy's name for the hooks."""
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("alignzoo_"))
OWN_COMMANDS = ("run", "ls", "info", "cite", "compat", "check", "new", "recipes", "doctor")
"""Commands of the core; a plugin cannot take their place."""
_EXTENSION_OF = {
    "alignzoo_commands": "command",
    "alignzoo_observers": "observer",
    "alignzoo_formats": "format",
    "alignzoo_judges": "judge",
    "alignzoo_models": "model",
    "alignzoo_data": "data",
    "alignzoo_evaluators": "evaluator",
    "alignzoo_jailbreaks": "jailbreak",
}


def ask(plugin: Plugin, module: Any) -> None:
    """Call every hook the plugin has, and keep what it declares."""
    _check_hook_names(module)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin.entry_point)
    asked = [name for name in HOOKS if getattr(manager.hook, name).get_hookimpls()]
    if not asked:
        plugin.warnings.append(f"provides nothing: none of its functions is a hook ({', '.join(HOOKS)})")
    for name in asked:
        _keep(plugin, name, _declared(manager, name))
    if asked and not (plugin.provides or plugin.warnings):
        plugin.warnings.append(f"provides nothing: {', '.join(asked)} returned no cards; a hook returns a list")


def reserved(card: Extension) -> str:
    """The warning about an extension that has the name of one of alignzoo's own."""
    return f"reserved: {card.name!r} is a built-in {card.kind}, so this one is ignored"


def _declared(manager: pluggy.PluginManager, name: str) -> list[Any]:
    """What a hook gives."""
    try:
        with contained():
            results = getattr(manager.hook, name)()
            for result in results:
                if isinstance(result, (str, Path, BaseModel)):
                    raise TypeError(f"a hook must return a list, this returned a single {type(result).__name__}")
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
        marked = hasattr(value, f"{PROJECT}_impl")
        if marked and name not in HOOKS:
            known = suggest(name, HOOKS) or f"hooks: {', '.join(HOOKS)}"
            raise NameError(f"there is no hook {name!r}; {known}")
        if not marked and name in HOOKS:
            raise NameError(f"{name} is not marked with @hookimpl, so it would never be called")


def _keep(plugin: Plugin, hook: str, given: list[Any]) -> None:
    if hook == "alignzoo_recipes":
        plugin.recipes = _files(hook, "recipe", given)
        return
    if hook == "alignzoo_suites":
        plugin.suites = _files(hook, "suite", given)
        return
    if hook == "alignzoo_methods":
        for method in given:
            if not isinstance(method, (Card, Composition)):
                raise TypeError(f"{hook}() returned a {type(method).__name__}, expected Card or Composition")
            if isinstance(method, Card) and plugin.distribution != OWN_DISTRIBUTION:  # tests check alignzoo's own
                check_defaults(method)
        plugin.methods = given
        _check_twice([(method.kind, name) for method in given for name in (method.name, *method.aliases)])
        return
    for card in given:
        if not isinstance(card, Extension):
            raise TypeError(f"{hook}() returned a {type(card).__name__}, expected Extension")
        if card.kind != _EXTENSION_OF[hook]:
            raise ValueError(f"{hook}() returned {card.name!r} of kind {card.kind}, expected {_EXTENSION_OF[hook]}")
    for card in given:
        if card.kind == "command" and card.name in OWN_COMMANDS:
            plugin.warnings.append(reserved(card))
        else:
            plugin.extensions.append(card)
    _check_twice([(card.kind, card.name) for card in given])


def _files(hook: str, kind: str, given: list[Any]) -> dict[str, Path]:
    """Files by their names without the suffix."""
    paths = [Path(path) for path in given]
    for path in paths:
        if not path.is_absolute():
            raise ValueError(f"{hook}() names {path}; use an absolute path: Path(__file__).with_name(...)")
        if not is_file(path):
            raise FileNotFoundError(f"{hook}() names {path}, which is not a file")
    _check_twice([(kind, path.stem) for path in paths])
    return {path.stem: path for path in paths}


def check_defaults(card: Card) -> None:
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


def _check_twice(names: list[tuple[str, str]]) -> None:
    for kind, name in names:
        if names.count((kind, name)) > 1:
            raise ValueError(f"{kind} {name!r} is declared twice")
