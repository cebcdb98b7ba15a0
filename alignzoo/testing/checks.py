"""Collects and runs the checks of a method; a kind's record names its rules."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from alignzoo.base.suggest import suggest
from alignzoo.contract.card import Card, Composition
from alignzoo.contract.kinds import KINDS
from alignzoo.errors import UsageError
from alignzoo.plugin.registry import registry
from alignzoo.testing import common
from alignzoo.testing.outcomes import Check, ContractError, Outcome, Report, Rule, Violation
from alignzoo.testing.subject import Subject


def _rules_at(place: str) -> tuple[Rule, ...]:
    module, _, name = place.partition(":")
    rules: tuple[Rule, ...] = getattr(importlib.import_module(module), name)
    return rules


RULES: dict[str, tuple[Rule, ...]] = {name: (*common.RULES, *_rules_at(kind.rules)) for name, kind in KINDS.items()}
"""All rules by kind of method, in the order in which they run."""

_EXPECTATIONS = "expected-failures"


def checks_for(card: Card) -> list[Check]:
    """The checks of a method: the rules of its kind that apply to what its card declares.

    Where the card has ``expected_failures``, a last check holds their names to the rules there are.
    """
    subject = Subject(card)
    rules = [rule for rule in RULES[card.kind] if rule.applies(card)]
    checks = [
        Check(
            card,
            rule.name,
            rule.summary,
            card.expected_failures.get(rule.name),
            functools.partial(rule.run, subject),
            rule.ground,
        )
        for rule in rules
    ]
    if card.expected_failures:
        names = [rule.name for rule in rules]
        run = functools.partial(_known_expectations, card, names)
        checks.append(Check(card, _EXPECTATIONS, "expected_failures names rules of this method", None, run))
    return checks


def check_method(card: Card | str, *, kind: str | None = None, rules: Collection[str] | None = None) -> Report:
    """Run the contract on a method.

    Args:
        card: the card, or the name of an installed method (``"dpo"``, ``"distribution:dpo"``).
        kind: of the named method, where several kinds have the name.
        rules: run these only; all by default.

    Raises:
        UsageError: no such method or rule, or a name that several kinds have.
        BrokenPluginError: the plugin that brings the method does not load.
    """
    card = _find(card, kind) if isinstance(card, str) else card
    checks = checks_for(card)
    if rules is not None:
        _check_names(card, rules, [check.rule for check in checks])
        checks = [check for check in checks if check.rule in rules]
    return Report(card.kind, card.name, tuple(outcomes_of(checks)))


def outcomes_of(checks: Iterable[Check]) -> Iterator[Outcome]:
    """The outcomes of a method's checks, one after the other; checks that depend on a broken rule are
    skipped."""
    broken: str | None = None
    for check in checks:
        outcome = check.outcome(time.perf_counter) if broken is None else check.skipped(broken)
        if check.ground and outcome.status == "failed":
            broken = check.rule
        yield outcome


def contract(*methods: Card | str) -> Callable[[Any], Any]:
    """A pytest decorator: one test per method and rule, named ``KIND-NAME-RULE``, with the check as ``check``.

    A rule in the card's ``expected_failures`` is a strict ``xfail``: the test fails where the rule is kept.

    Raises:
        UsageError: no such method, or a name that several kinds have.
    """
    import pytest

    params = []
    for method in methods:
        for check in checks_for(_find(method, None) if isinstance(method, str) else method):
            marks = []
            if check.expected is not None:
                marks.append(pytest.mark.xfail(strict=True, raises=ContractError, reason=check.expected))
            name = f"{check.card.kind}-{check.card.name}-{check.rule}"
            params.append(pytest.param(check, id=name, marks=marks))
    return pytest.mark.parametrize("check", params)


def _find(name: str, kind: str | None) -> Card:
    """The card of an installed method."""
    distribution, _, bare = name.rpartition(":")
    bringing = dict.fromkeys(
        method.kind
        for plugin, method in registry().entries()
        if isinstance(method, Card)
        and bare in (method.name, *method.aliases)
        and distribution in ("", plugin.distribution)
    )
    if kind is None and len(bringing) > 1:
        raise UsageError(
            f"{name!r} is the name of several methods: {', '.join(f'a {found}' for found in bringing)}",
            hint="say which: " + " or ".join(f"kind={found!r}" for found in bringing),
        )
    only: str = next(iter(bringing), next(iter(KINDS)))
    method = registry().find(kind if kind is not None else only, name)
    if isinstance(method, Composition):
        raise UsageError(f"{name!r} is a composition: {method.flags()}", hint="check its parts instead")
    return method


def _check_names(card: Card, asked: Collection[str], known: list[str]) -> None:
    for name in asked:
        if name not in known:
            hint = suggest(name, known) or f"it has: {', '.join(known)}"
            raise UsageError(f"{card.kind} {card.name!r} has no rule {name!r}", hint=hint)


def _known_expectations(card: Card, known: list[str]) -> None:
    for name in card.expected_failures:
        if name not in known:
            raise Violation(
                expected=f"rules of this {card.kind} in expected_failures",
                found=repr(name),
                remedy=suggest(name, known) or f"take it out; there are: {', '.join(known)}",
            )
