"""The rule of what wrappers do under the opposite label."""

from __future__ import annotations

from typing import Any

from alignzoo.contract.pairs import PairBatch
from alignzoo.interfaces import Values
from alignzoo.lazy import torch
from alignzoo.testing.common import used_as_declared
from alignzoo.testing.outcomes import Rule
from alignzoo.testing.sample import sample
from alignzoo.testing.spy import Reads, reads
from alignzoo.testing.stages import logistic
from alignzoo.testing.subject import Configuration, Subject


def _declared_swap(subject: Subject) -> None:
    asked = [(configuration, _watched(subject, configuration).swapped) for configuration in subject.configurations]
    used_as_declared(
        subject,
        "swap",
        asked,
        what="pairs.swap()",
        missing="add 'swap' to the card's needs: there are losses that have no meaning under the opposite label",
        idle="take 'swap' out of the needs: it excludes losses for nothing",
    )


def _watched(subject: Subject, configuration: Configuration) -> Reads:
    """What the method's own ``per_pair`` does with pairs that have every field; what the loss does is not counted."""
    method, loss = subject.build(configuration), logistic()
    with reads() as seen:
        inner = _unwatched(loss, seen)
        method.observe(inner(sample(seed=1)), sample(seed=1))
        method.observe_inside(inner, sample(seed=1))
        method.per_pair(inner, sample())
    return seen


def _unwatched(loss: Any, seen: Reads) -> Values:
    def inner(pairs: PairBatch) -> torch.Tensor:
        with seen.paused():
            values: torch.Tensor = loss(pairs)
            return values

    return inner


DECLARED_SWAP = Rule("declared-swap", "pairs are swapped where it is declared, and only there", _declared_swap)
