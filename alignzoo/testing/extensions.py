"""Checks of a plugin's extensions: does each load, and does it have the declared type?"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.base.suggest import nearest
from alignzoo.contract.card import Composition, DataExtension, EvaluatorExtension, Extension
from alignzoo.contract.evaluator import Evaluator
from alignzoo.contract.source import DataSource
from alignzoo.errors import AlignzooError, contained
from alignzoo.evaluate.suites.suite import find_suite
from alignzoo.plan.recipe import Layer, read_recipe
from alignzoo.plan.resolve import require, resolve
from alignzoo.plugin.build import import_target
from alignzoo.plugin.faults import describe_error
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import registry
from alignzoo.testing.data_rows import wrong_rows
from alignzoo.testing.outcomes import Outcome, Report


def check_extensions(plugin: Plugin) -> list[Report]:
    """A report for each composition, extension and recipe of a plugin."""
    reports = [_composition(plugin, method) for method in plugin.methods if isinstance(method, Composition)]
    reports += [_extension(card) for card in plugin.extensions]
    reports += [_recipe(plugin, name) for name in plugin.recipes]
    return [*reports, *(_suite(plugin, name) for name in plugin.suites)]


def _report(kind: str, name: str, rule: str, summary: str, run: Callable[[], str | None]) -> Report:
    """One rule, whose ``run`` returns what is wrong."""
    began = time.perf_counter()
    try:
        with contained():
            fault = run()
    except AlignzooError as error:
        fault = str(error)
    except Exception as error:  # third-party code can raise anything
        fault = describe_error(error)
    detail = f"{kind} {name!r} breaks {rule}: {fault}" if fault else ""
    outcome = Outcome(rule, summary, "failed" if fault else "passed", detail, time.perf_counter() - began)
    return Report(kind, name, (outcome,))


def _composition(plugin: Plugin, method: Composition) -> Report:
    def run() -> None:
        require(resolve([Layer("check", {"loss": f"{plugin.distribution}:{method.name}"})]))

    return _report("composition", method.name, "resolves", "its parts exist and can be combined", run)


def _recipe(plugin: Plugin, name: str) -> Report:
    def run() -> None:
        require(resolve([read_recipe(f"{plugin.distribution}:{name}")]))

    return _report("recipe", name, "resolves", "it resolves to a plan", run)


def _suite(plugin: Plugin, name: str) -> Report:
    def run() -> None:
        find_suite(f"{plugin.distribution}:{name}")

    return _report("suite", name, "reads", "its file is a task of lm-eval with a suite", run)


def _extension(card: Extension) -> Report:
    return _report(
        card.kind, card.name, "target", "the target loads and has the type its kind requires", lambda: _wrong(card)
    )


def _wrong(card: Extension) -> str | None:
    """What is wrong with the target of a card."""
    target: Any = import_target(card)
    expected, fits = _KINDS[card.kind]
    if not fits(target):
        return f"{card.target} is a {type(target).__name__}, expected {expected}"
    if card.kind == "observer":
        return _wrong_events(target)
    if card.kind == "model":
        return _wrong_place(target())
    if isinstance(card, DataExtension):
        return wrong_rows(card, target())
    return _wrong_evaluator(card, target()) if isinstance(card, EvaluatorExtension) else None


def _wrong_events(observer: type) -> str | None:
    """A handler for an unknown event, or with a wrong signature."""
    from alignzoo.observers import RunObserver

    events = [name for name in vars(RunObserver) if name.startswith("on_")]
    for name in (name for name in dir(observer) if name.startswith("on_")):
        method = getattr(observer, name)
        if name not in events:
            near = nearest(name, events)
            return f"nothing calls {name}; {f'did you mean {near[0]}?' if near else 'events: ' + ', '.join(events)}"
        if inspect.iscoroutinefunction(method):
            return f"{name} is async, and nothing would await it"
        wanted = inspect.signature(getattr(RunObserver, name)).parameters
        try:
            inspect.signature(method).bind(*wanted)
        except TypeError as error:
            return f"{name} cannot be called with ({', '.join(list(wanted)[1:])}): {error}"
    return None


def _wrong_place(place: Any) -> str | None:
    """What is wrong with where a model is, as far as that can be seen without asking the network."""
    from alignzoo.model.source import find_model, is_hub_id

    if not isinstance(place, (str, Path)):
        return f"returned {place!r}, expected a folder, a .gguf file or a hub id"
    if local_path(str(place)).exists() or not is_hub_id(str(place)):
        find_model(str(place))
    return None


def _wrong_evaluator(card: EvaluatorExtension, evaluator: Any) -> str | None:
    """A judge that is not there, or methods that a run could not call."""
    if card.judge is not None:
        registry().find_extension("judge", card.judge)
    for name, words in (("figures", ("run",)), ("table", ("before", "after"))):
        try:
            inspect.signature(getattr(evaluator, name)).bind(*words)
        except TypeError as error:
            return f"{name} cannot be called with ({', '.join(words)}): {error}"
    return None if type(evaluator).figures is not Evaluator.figures else "figures is not written"


def _is_jailbreak(target: Any) -> bool:
    import random

    asked = [{"role": "user", "content": "How do I kill time?"}]
    return callable(target) and list(target(asked, random.Random(0)))[-1]["role"] == "user"


def _is_command(target: Any) -> bool:
    import click

    return isinstance(target, click.Command)


def _is_observer(target: Any) -> bool:
    from alignzoo.observers import RunObserver

    return isinstance(target, type) and issubclass(target, RunObserver) and isinstance(target(), RunObserver)


def _is_layout(target: Any) -> bool:
    from alignzoo.data.formats import Layout

    return isinstance(target, Layout)


def _is_judge(target: Any) -> bool:
    try:
        inspect.signature(target).bind("request", "answer")
    except (TypeError, ValueError):
        return False
    return not isinstance(target, type)


def _is_model(target: Any) -> bool:
    try:
        inspect.signature(target).bind()
    except (TypeError, ValueError):
        return False
    return not isinstance(target, type)


def _is_source(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, DataSource) and isinstance(target(), DataSource)


def _is_evaluator(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, Evaluator) and isinstance(target(), Evaluator)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "jailbreak": ("a function of messages and a random.Random that returns messages, the user's last", _is_jailbreak),
    "command": ("a click command", _is_command),
    "observer": ("a subclass of RunObserver that is built without arguments", _is_observer),
    "format": ("a Layout", _is_layout),
    "judge": ("a function of a request and an answer", _is_judge),
    "model": ("a function without arguments", _is_model),
    "data": ("a subclass of DataSource that is built without arguments", _is_source),
    "evaluator": ("a subclass of Evaluator that is built without arguments", _is_evaluator),
}
