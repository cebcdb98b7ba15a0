"""State of losses and wrappers: it changes in observe() only, and a checkpoint holds all of it."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import differ
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.sample import sample_of
from alignzoo.testing.subject import Configuration, Subject

BEFORE, AFTER = (21, 22), (31, 32)
"""Seeds of the steps that a method has seen when it is checked, and of those that follow a checkpoint."""

Evaluate = Callable[[Any, Any], Sequence["torch.Tensor"]]
"""All results of a method on a batch, detached."""

Observe = Callable[[Any, Any], None]
"""Show a method the batch of a step."""


def warm(
    subject: Subject, observe: Observe, *, lent: frozenset[Any] = frozenset()
) -> Iterator[tuple[Configuration, Any]]:
    """A new method per configuration that has seen the batches of two steps.

    Args:
        lent: needs of what the kit puts around the method.
    """
    for configuration in subject.configurations:
        method = subject.build(configuration)
        for seed in BEFORE:
            observe(method, sample_of(subject.reads, subject.needs(configuration) | lent, seed=seed))
        yield configuration, method


def check_state(subject: Subject, observe: Observe, evaluate: Evaluate, *, lent: frozenset[Any] = frozenset()) -> None:
    """Evaluating changes nothing; a new method with the state of an old one continues as the old one does.

    Raises:
        Violation: not so.
        MethodError: the state is not plain data.
    """
    from alignzoo.step.states import plain_state

    for configuration, method in warm(subject, observe, lent=lent):
        needs = subject.needs(configuration) | lent
        batch = sample_of(subject.reads, needs)
        if differ(evaluate(method, batch), evaluate(method, batch)):
            raise Violation(
                expected="two evaluations of the same batch to be the same",
                found=f"others {configuration}",
                remedy="change statistics in observe() only, and draw nothing at random",
            )
        fresh = subject.build(configuration)
        fresh.load_state_dict(copy.deepcopy(plain_state(method)))
        for seed in AFTER:
            if differ(evaluate(method, batch), evaluate(fresh, batch)):
                raise Violation(
                    expected="a new method with the old one's state_dict() to give what the old one gives",
                    found=f"other values {configuration}",
                    remedy="put every running statistic into state_dict() and take it out in load_state_dict()",
                )
            for one in (method, fresh):
                observe(one, sample_of(subject.reads, needs, seed=seed))


NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")
"""What a method may call a number that it logs."""


def check_metrics(
    subject: Subject, observe: Observe, evaluate: Evaluate, log: Callable[[Any, Any], Any], *, lent: frozenset[Any]
) -> None:
    """``metrics()`` gives finite numbers under names that a file can hold, and leaves the method as it was.

    Args:
        log: what the method's ``metrics()`` gives for a batch.

    Raises:
        Violation: not so.
    """
    from alignzoo.step.states import plain_state

    for configuration, method in warm(subject, observe, lent=lent):
        batch = sample_of(subject.reads, subject.needs(configuration) | lent)
        before, state = evaluate(method, batch), copy.deepcopy(plain_state(method))
        given = log(method, batch)
        if not isinstance(given, Mapping):
            raise _no_number("a mapping from names to numbers", f"a {type(given).__name__}", configuration)
        for name, value in given.items():
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise _no_number("names of lower-case letters, digits, _ and /", repr(name), configuration)
            single = isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.shape == ())
            if not (single and math.isfinite(float(value))):
                raise _no_number(f"a finite number as {name!r}", f"{value!r}"[:80], configuration)
        if differ(before, evaluate(method, batch)) or not same_state(state, plain_state(method)):
            raise Violation(
                expected="metrics() to leave the method as it was",
                found=f"other values or another state after it {configuration}",
                remedy="change statistics in observe() only",
            )


def same_state(one: Any, other: Any) -> bool:
    """Equality of state dicts."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same_state, one, other))
    return bool(one == other)


def _no_number(expected: str, found: str, configuration: Configuration) -> Violation:
    return Violation(
        expected=f"metrics() to give {expected}",
        found=f"{found} {configuration}",
        remedy="return a dict of floats or of tensors (); they go to metrics.jsonl",
    )
