"""State of losses and wrappers: it changes in observe() only, and a checkpoint holds all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alignzoo.contract.pairs import PairBatch
from alignzoo.lazy import torch
from alignzoo.testing.arithmetic import differ
from alignzoo.testing.outcomes import Violation
from alignzoo.testing.sample import sample
from alignzoo.testing.subject import Configuration, Subject

BEFORE, AFTER = (21, 22), (31, 32)
"""Seeds of the steps that a method has seen when it is checked, and of those that follow a checkpoint."""

Evaluate = Callable[[Any, PairBatch], Sequence["torch.Tensor"]]
"""All results of a method on some pairs, detached."""

Observe = Callable[[Any, PairBatch], None]
"""Show a method the pairs of a step."""


def warm(
    subject: Subject, observe: Observe, *, lent: frozenset[Any] = frozenset()
) -> Iterator[tuple[Configuration, Any]]:
    """A new method per configuration; a coupled one has seen the pairs of two steps.

    Args:
        lent: needs of what the kit puts around the method.
    """
    for configuration in subject.configurations:
        method = subject.build(configuration)
        if subject.card.batch_coupled:
            for seed in BEFORE:
                observe(method, sample(subject.needs(configuration) | lent, seed=seed))
        yield configuration, method


def check_state(subject: Subject, observe: Observe, evaluate: Evaluate, *, lent: frozenset[Any] = frozenset()) -> None:
    """Evaluating changes nothing; a new method with the state of an old one goes on as the old one does.

    Raises:
        Violation: not so.
        MethodError: the state is not plain data.
    """
    from alignzoo.step.states import plain_state

    for configuration, method in warm(subject, observe, lent=lent):
        needs = subject.needs(configuration) | lent
        pairs = sample(needs)
        if differ(evaluate(method, pairs), evaluate(method, pairs)):
            raise Violation(
                expected="two evaluations of the same pairs to be the same",
                found=f"others {configuration}",
                remedy="change statistics in observe() only, and draw nothing at random",
            )
        fresh = subject.build(configuration)
        fresh.load_state_dict(copy.deepcopy(plain_state(method)))
        for seed in AFTER:
            if differ(evaluate(method, pairs), evaluate(fresh, pairs)):
                raise Violation(
                    expected="a new method with the old one's state_dict() to give what the old one gives",
                    found=f"other values {configuration}",
                    remedy="put every running statistic into state_dict() and take it out in load_state_dict()",
                )
            if subject.card.batch_coupled:
                for one in (method, fresh):
                    observe(one, sample(needs, seed=seed))
