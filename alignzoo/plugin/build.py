"""From a card to a working method: validated options, the imported class, the object."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import ValidationError

from alignzoo.base.shown import shown
from alignzoo.base.suggest import suggest
from alignzoo.contract.card import Card, Composition, Extension, Need, Options
from alignzoo.contract.kinds import KINDS, Kind, kind_of
from alignzoo.errors import BrokenPluginError, UsageError, contained
from alignzoo.plugin.faults import describe_error, package_of
from alignzoo.plugin.guard import guarded
from alignzoo.plugin.registry import Registry, registry
from alignzoo.plugin.signatures import misfit


def build_options(card: Card, values: dict[str, Any]) -> Options:
    """Validated options of a method.

    Raises:
        UsageError: an unknown option (with the nearest name) or a value of the wrong type or out of its bounds.
    """
    unknown = [name for name in values if name not in card.options.model_fields]
    if unknown:
        fields = card.options.model_fields
        raise UsageError(
            f"{card.kind} {card.name!r} has no option {shown(unknown[0])}",
            hint=suggest(unknown[0], fields) or (f"it has: {', '.join(fields)}" if fields else "it has none"),
        )
    try:
        with contained():
            return card.options.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            "; ".join(_explain(card, problem) for problem in error.errors()),
            hint=f"`alignzoo info {card.name}` lists the options with their bounds",
        ) from error
    except Exception as error:
        raise BrokenPluginError(
            f"the options of {card.kind} {card.name!r} fail on {shown(values)}: {describe_error(error)}",
            hint="a validator must raise ValueError for an invalid value; fix its plugin",
        ) from error


def default_needs(card: Card) -> frozenset[Need]:
    """What a method needs with its default options; only what the card states where an option has no default."""
    try:
        return card.needs | card.options().needs()
    except ValidationError:
        return card.needs


def readers(kind: Kind, methods: Registry) -> list[Card]:
    """The methods of other kinds that need, with their default options, what this kind serves."""
    cards = [card for _, card in methods.entries() if isinstance(card, Card) and card.kind != kind.name]
    return [card for card in cards if default_needs(card) & kind.serves and not KINDS[card.kind].early]


def _explain(card: Card, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    option = f"--{card.kind}.{where}" if where else f"{card.kind} {card.name!r}"
    if problem["type"] == "missing" and where in card.options.model_fields:
        return f"--{card.kind} {card.name} needs {option}: {card.options.model_fields[where].description}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{option}: {message[0].lower()}{message[1:]}" + (f" (got {shown(problem['input'])})" if where else "")


def import_target(card: Card | Extension) -> Any:
    """What a card's target names.

    Raises:
        BrokenPluginError: it cannot be imported.
    """
    module, _, name = card.target.partition(":")
    with guarded(
        f"{card.kind} {card.name!r} does not load from {card.target}",
        error=BrokenPluginError,
        hint="`alignzoo doctor` lists all plugins and where they come from",
        passes=(),
        packages={package_of(module)},
    ):
        return getattr(importlib.import_module(module), name)


def class_of(card: Card) -> Any:
    """The class of a method, after a look at how it can be called; it is not built.

    Raises:
        BrokenPluginError: it cannot be imported, has a method of an older plugin API, or one with other arguments than
            its kind's.
    """
    target, base = import_target(card), kind_of(card.kind).base
    if getattr(card, "function", False):  # a judge for the evaluator of a run's data
        return target
    for name, remedy in base.retired.items():
        if hasattr(target, name):
            raise BrokenPluginError(
                f"{card.kind} {card.name!r}: {card.target} has `{name}` of plugin API 1, which this alignzoo does not "
                "call",
                hint=remedy,
            )
    if problem := misfit(target, base):
        raise BrokenPluginError(
            f"{card.kind} {card.name!r}: {problem}",
            hint=f"give it the arguments of {base.__name__}, in alignzoo.interfaces",
        )
    return target


def instantiate(card: Card, options: Options) -> Any:
    """The method object of a card.

    Raises:
        BrokenPluginError: its class is not usable (see :func:`class_of`) or cannot be built.
    """
    target = class_of(card)
    with guarded(
        f"{card.kind} {card.name!r} cannot be built from {card.target}",
        error=BrokenPluginError,
        hint=f"`alignzoo check {card.name}` says which rule of the contract it breaks",
        passes=(),
        packages={package_of(card.target)},
    ):
        return target(options)


def load_method(kind: str, name: str, **options: Any) -> Any:
    """Build a method: ``load_method("loss", "dpo", beta=0.1)``.

    Returns an object of the kind's class in :mod:`alignzoo.interfaces`, such as
    :class:`~alignzoo.interfaces.PreferenceLoss`.

    Raises:
        UsageError: unknown name or option, or a value out of bounds.
        BrokenPluginError: the plugin or its target does not load.
    """
    method = registry().find(kind, name)
    if isinstance(method, Composition):
        raise UsageError(
            f"{name!r} is a composition: {method.flags()}", hint="load its parts, or use it with `alignzoo run`"
        )
    return instantiate(method, build_options(method, options))
