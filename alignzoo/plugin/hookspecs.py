"""The whole plugin contract. A plugin is a module without heavy imports, named by an entry point of group ``alignzoo``.

::

    from alignzoo.plugin import Card, hookimpl

    @hookimpl
    def alignzoo_methods():
        return [Card(kind="loss", name="mine", target="my_package.mine:Mine", ...)]

Every hook is called once, at discovery, and only declares: a card's ``target`` is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pluggy

from alignzoo.contract.card import Card, Composition, Extension

hookspec = pluggy.HookspecMarker("alignzoo")
hookimpl = pluggy.HookimplMarker("alignzoo")


@hookspec
def alignzoo_methods() -> Iterable[Card | Composition]:  # type: ignore[empty-body]
    """Methods of every kind (losses, robust wrappers, geometry controllers, …), and names for their combinations."""


@hookspec
def alignzoo_recipes() -> Iterable[Path]:  # type: ignore[empty-body]
    """YAML files of whole runs: ``alignzoo run --recipe NAME``, where NAME is the file's name without ``.yaml``."""


@hookspec
def alignzoo_suites() -> Iterable[Path]:  # type: ignore[empty-body]
    """Suites of prompts, each one lm-eval task file: ``alignzoo eval --suite NAME``, where NAME is the file's name
    without ``.yaml`` and the name of its task."""


@hookspec
def alignzoo_jailbreaks() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Jailbreaks that wrap the requests of a suite: ``alignzoo eval --jailbreak NAME``."""


@hookspec
def alignzoo_commands() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Commands: ``alignzoo NAME``. A built-in command keeps its name."""


@hookspec
def alignzoo_observers() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Observers of a run: ``alignzoo run --observe NAME`` notifies them of its start, steps, evaluations,
    checkpoints and end. They cannot break it."""


@hookspec
def alignzoo_formats() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Layouts of preference data: ``--data.format NAME``; detected automatically if no built-in layout fits."""


@hookspec
def alignzoo_judges() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Judges of generated answers: ``--judge NAME``."""


@hookspec
def alignzoo_models() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Models by name: ``--model NAME``. A name takes precedence over a folder or a hub id."""


@hookspec
def alignzoo_data() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Data by name, with its splits: ``--data NAME``. A name takes precedence over a folder or a hub id."""


@hookspec
def alignzoo_evaluators() -> Iterable[Extension]:  # type: ignore[empty-body]
    """Evaluators of generated answers; a data card names its evaluator."""
