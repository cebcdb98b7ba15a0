"""What cannot be combined with what, two methods at a time, as text and as JSON: a part of ``alignzoo compat``."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alignzoo.cli.console import PIPE_WIDTH, print_lines
from alignzoo.contract.kinds import KINDS, Kind
from alignzoo.errors import IncompatibleError
from alignzoo.plan.plan import Method
from alignzoo.plan.refusals import Pairs, Refusal

Line = tuple[str, str]
"""What a method cannot be combined with, such as ``with loss cpo, orpo`` or ``after robust cvar``, and why."""


def refusal_dict(refusal: Refusal, pairs: Pairs) -> dict[str, Any]:
    """A refused pair as JSON-able data; ``order`` is ``this`` if the other order is allowed."""
    return {
        "methods": [{"kind": m.card.kind, "name": pairs.name_of(m)} for m in (refusal.first, refusal.second)],
        "order": "any" if refusal.either_order else "this",
        **_reason(refusal.problem),
    }


def refusals_dict(pairs: Pairs) -> dict[str, Any]:
    """Every refused pair as JSON-able data, and the methods that cannot be used on this launch at all."""
    every = itertools.chain(*pairs.methods.values())
    unusable = [(method, problem) for method in every for problem in pairs.nowhere(method)]
    return {
        "refused": [refusal_dict(refusal, pairs) for refusal in pairs.all()],
        "unusable": [{"kind": m.card.kind, "name": pairs.name_of(m), **_reason(problem)} for m, problem in unusable],
    }


def _reason(problem: IncompatibleError) -> dict[str, Any]:
    return {"rule": problem.rule, "message": problem.message, "hint": problem.hint}


def show_refusals(pairs: Pairs) -> None:
    """Every refused pair on stdout, under the kind of its later method in the table of kinds."""
    refusals = pairs.all()
    lines = ["Two methods can be combined, each with its default options, except as listed here."]
    for kind in KINDS.values():
        mine = [refusal for refusal in refusals if refusal.second.card.kind == kind.name]
        body = list(_section(kind, pairs, mine))
        lines += ["", kind.title, *body] if body else []
    print_lines(*lines)


def show_refusals_of(method: Method, pairs: Pairs) -> None:
    """What one method cannot be combined with, on stdout."""
    refused = _lines(method, pairs.of(method), pairs)
    title = f"{method.card.kind} {pairs.name_of(method)} can be combined with everything"
    print_lines(f"{title}, but not" if refused else title, *_listed(refused, "  "))


def _section(kind: Kind, pairs: Pairs, refusals: Sequence[Refusal]) -> Iterator[str]:
    """The lines about the methods of a kind: rivals first, then methods with the same refusals together; all are named
    but the losses, which the other methods are combined with."""
    rivals = _rivals(refusals)
    for rule, methods in rivals.items():
        yield from _wrapped(f"at most one of {_names(methods, pairs)}: {rule}", "  ")
    groups: dict[tuple[Line, ...], list[Method]] = {}
    for method in pairs.methods[kind.name]:
        mine = [r for r in refusals if r.second is method and r.problem.rule not in rivals]
        unusable = [("here", problem.rule) for problem in pairs.nowhere(method)]
        groups.setdefault((*unusable, *_lines(method, mine, pairs)), []).append(method)
    free = groups.pop((), [])
    for lines, methods in groups.items():
        yield from _wrapped(_names(methods, pairs), "  ")
        yield from _listed(lines, "    not ")
    if free and kind.name != "loss":
        yield from _wrapped(f"no restrictions{' otherwise' if rivals else ''}: {_names(free, pairs)}", "  ")


def _rivals(refusals: Iterable[Refusal]) -> dict[str, list[Method]]:
    """Methods of a kind of which a run can have only one, by the rule that says so."""
    found: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        if refusal.first.card.kind == refusal.second.card.kind and refusal.either_order:
            found.setdefault(refusal.problem.rule, []).append(refusal)
    rivals: dict[str, list[Method]] = {}
    for rule, pairs in found.items():
        members = {id(method): method for refusal in pairs for method in (refusal.first, refusal.second)}
        if len(pairs) == len(members) * (len(members) - 1) // 2:
            rivals[rule] = list(members.values())
    return rivals


def _lines(method: Method, refusals: Sequence[Refusal], pairs: Pairs) -> list[Line]:
    """The refusals of one method: by kind, order and rule; rules about the same methods in one line."""
    others: dict[tuple[str, str, str], list[Method]] = {}
    for refusal in refusals:
        other, word = (refusal.first, "after") if refusal.second is method else (refusal.second, "before")
        key = other.card.kind, "with" if refusal.either_order else word, refusal.problem.rule
        others.setdefault(key, []).append(other)
    rules: dict[str, list[str]] = {}
    for kind in KINDS:
        for (of, word, rule), methods in others.items():
            if of == kind:
                rules.setdefault(f"{word} {kind} {_names(methods, pairs)}", []).append(rule)
    return [(refused, "; ".join(why)) for refused, why in rules.items()]


def _names(methods: Iterable[Method], pairs: Pairs) -> str:
    return ", ".join(pairs.name_of(method) for method in methods)


def _listed(lines: Iterable[Line], indent: str) -> Iterator[str]:
    for refused, why in lines:
        yield from _wrapped(f"{refused}: {why}", indent)


def _wrapped(text: str, indent: str) -> list[str]:
    """A text in lines that fit the terminal, or :data:`PIPE_WIDTH` characters; names stay whole."""
    width = min(PIPE_WIDTH, shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH)
    beside = " " * (len(indent) - len(indent.lstrip()) + 2)
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=beside, break_on_hyphens=False, break_long_words=False
    )
