"""Rules of every kind of method: its card, its options, and how it is built."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from alignzoo.contract.card import Need
from alignzoo.contract.kinds import kind_of
from alignzoo.errors import contained
from alignzoo.plugin.discover import HEAVY
from alignzoo.plugin.registry import registry
from alignzoo.testing.modules import Source, environment, sources
from alignzoo.testing.outcomes import Rule, Violation
from alignzoo.testing.subject import Configuration, Subject

_FRESH = """
import json, sys
from alignzoo.testing.modules import load
given = json.loads(sys.argv[1])
for source in given["sources"]:
    load([source])
    for name in given["heavy"]:
        if name in sys.modules:
            print(json.dumps([source[0], name]))
            raise SystemExit
print("null")
"""


def card_without_torch(subject: Subject) -> None:
    """In a fresh interpreter: what this one has imported by now says nothing."""
    card = subject.card
    names = [card.options.__module__]
    names += [plugin.module for plugin in registry().plugins if any(method is card for method in plugin.methods)]
    given = json.dumps({"sources": sources(names), "heavy": HEAVY})
    command = [sys.executable, "-c", _FRESH, given]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode != 0:
        raise Violation(
            expected=f"that {' and '.join(names)} can be imported by a fresh Python",
            found=ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else "no answer",
            remedy="the module must be importable by its name, or be one file that needs nothing beside it",
        )
    heavy: Source | None = json.loads(ended.stdout.strip().splitlines()[-1])
    if heavy is not None:
        raise Violation(
            expected="a card that can be read without loading anything heavy",
            found=f"importing {heavy[0]} imports {heavy[1]}",
            remedy="write `from alignzoo.lazy import F, torch`, and import other heavy modules inside functions",
        )


def _target(subject: Subject) -> None:
    card = subject.card
    interface = kind_of(card.kind).base
    module, _, name = card.target.partition(":")
    try:
        with contained():
            found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise Violation(
            expected="a class at the card's target", found=f"{card.target}: {error}", remedy="correct `target`"
        ) from error
    if not (isinstance(found, type) and issubclass(found, interface)):
        raise Violation(
            expected=f"a subclass of {interface.__name__} at {card.target}",
            found=f"{getattr(found, '__name__', found)!r}, a {type(found).__name__}",
            remedy=f"derive the class from alignzoo.interfaces.{interface.__name__}, or correct the card's `kind`",
        )
    try:
        build: Callable[[Any], Any] = found
        with contained():
            build(subject.default.options)
    except Exception as error:
        raise Violation(
            expected=f"{name}(options) to build the method",
            found=f"{type(error).__name__}: {error}",
            remedy="the constructor takes the options and nothing else",
        ) from error


def _options(subject: Subject) -> None:
    model, made = subject.card.options, subject.default.options
    name = next(iter(model.model_fields), None)
    try:
        model.model_validate({**subject.default.values, "no_such_option": 1})
    except ValidationError:
        pass
    else:
        raise Violation(
            expected="an unknown option to be refused",
            found=f"{model.__name__} takes any name, so a misspelt option would be ignored",
            remedy="derive it from alignzoo.plugin.Options and leave extra='forbid' alone",
        )
    if name is None:
        return
    try:
        setattr(made, name, getattr(made, name))
    except (ValidationError, TypeError, AttributeError):
        return
    raise Violation(
        expected="options that cannot change after they are made",
        found=f"{model.__name__}.{name} can be set",
        remedy="derive it from alignzoo.plugin.Options and leave frozen=True alone",
    )


def every_option_matters(subject: Subject, different: Callable[[Configuration, Configuration], bool]) -> None:
    """Find, for each option, two configurations that differ in it and in what comes out.

    Raises:
        Violation: there are none for an option, or no other valid value of it was found.
    """
    for name in subject.fields:
        tried = 0
        for tried, (base, changed) in enumerate(subject.variations(name), start=1):  # noqa: B007 - told below
            if different(base, changed):
                break
        else:
            raise dead_option(name, tried)


def dead_option(name: str, tried: int) -> Violation:
    """The violation of an option that changed nothing in ``tried`` other values."""
    if not tried:
        return Violation(
            expected=f"another valid value of option {name!r} than its default",
            found="none",
            remedy="name some: Field(..., examples=[...])",
        )
    return Violation(
        expected=f"option {name!r} to change something in some configuration",
        found=f"the same results in {tried} comparisons",
        remedy="use it, take it out, refuse it where it does nothing, or give values that matter as "
        "Field(..., examples=[...])",
    )


RULES = (
    Rule("card-without-torch", "the card can be read without importing torch", card_without_torch),
    Rule("target", "the target is a class of the kind's interface, built from its options", _target),
    Rule("options", "the options build, are frozen, and refuse unknown names", _options),
)


def used_as_declared(
    subject: Subject, need: Need, used: Sequence[tuple[Configuration, bool]], *, what: str, missing: str, idle: str
) -> None:
    """Hold the use of something to the need that stands for it.

    Args:
        used: for each configuration, whether it was used.
        what: the call by which it is used.
        missing, idle: what the author can do where it is used without the need, and where the need is idle.

    Raises:
        Violation: used where it is not declared, or declared and never used.
    """
    for configuration, happened in used:
        if happened and need not in subject.needs(configuration):
            raise Violation(
                expected=f"no {what} without the need {need!r}", found=f"one {configuration}", remedy=missing
            )
    declared = [happened for configuration, happened in used if need in subject.needs(configuration)]
    if declared and not any(declared):
        raise Violation(
            expected=f"the declared need {need!r} to be used", found=f"that {what} is never called", remedy=idle
        )


def probed_as_declared(subject: Subject, probed: Sequence[tuple[Configuration, bool]]) -> None:
    """:func:`used_as_declared` of the probe that a run trains."""
    used_as_declared(
        subject,
        "probe",
        probed,
        what="probe(None)",
        missing="add 'probe' to the needs of the card, or of the options in which it is asked for",
        idle="take it out of the needs: every run would train a probe for it",
    )
