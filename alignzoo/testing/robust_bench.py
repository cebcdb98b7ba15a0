"""Wrappers over the kit's own logistic loss: on its sample of pairs, and in a plain step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignzoo.contract.card import Card, Need, Options
from alignzoo.contract.pairs import PairBatch
from alignzoo.contract.robust import RobustCard
from alignzoo.interfaces import GeometryController
from alignzoo.lazy import torch
from alignzoo.testing.sample import leaves, sample
from alignzoo.testing.stages import AtTheWeights, logistic
from alignzoo.testing.stateful import warm
from alignzoo.testing.subject import Configuration, Subject

if TYPE_CHECKING:
    from alignzoo.objective.objective import Objective

LENT: frozenset[Need] = frozenset({"reference"})
"""What the loss under the wrapper reads."""


def in_a_step(card: Card, wrapper: Any) -> tuple[Objective, GeometryController]:
    """The wrapper over the kit's loss as the objective of a plain step."""
    from alignzoo.objective.objective import Objective
    from alignzoo.objective.terms import Term, Wrapping

    coupled = card_of(card).batch_coupled or wrapper.options.couples()
    return Objective([Term(logistic())], [Wrapping(wrapper, card.name, coupled)]), AtTheWeights(Options())


def pairs_for(subject: Subject, configuration: Configuration, *, count: int = 8, seed: int = 0) -> PairBatch:
    """The sample's pairs with the fields of the wrapper's needs and of the loss under it."""
    return sample(subject.needs(configuration) | LENT, count=count, seed=seed)


def warmed(subject: Subject) -> Iterator[tuple[Configuration, Any]]:
    """The wrapper in each configuration, after it has observed a few steps."""
    return warm(subject, observe, lent=LENT)


def observe(wrapper: Any, pairs: PairBatch) -> None:
    """As a step does it: the values are those under the wrapper."""
    with torch.no_grad():
        wrapper.observe(values_of(wrapper, pairs), pairs)
        wrapper.observe_inside(logistic(), pairs)


def values_of(wrapper: Any, pairs: PairBatch) -> torch.Tensor:
    """``(B,)`` values of the kit's loss under the wrapper, detached."""
    values: torch.Tensor = wrapper.per_pair(logistic(), pairs)
    return values.detach()


def loss_vectors() -> list[torch.Tensor]:
    """Losses of eight pairs, alike and far apart."""
    draw = torch.Generator().manual_seed(3)
    return [scale * torch.randn(8, generator=draw, dtype=torch.float64) + 0.7 for scale in (0.5, 5.0)]


def results(wrapper: Any, pairs: PairBatch) -> list[torch.Tensor]:
    """The wrapper's values, and objective and weights of these and of other losses."""
    values = values_of(wrapper, pairs)
    found = [values]
    for losses in (values, *loss_vectors()):
        found += [wrapper.reduce(losses, pairs).detach(), wrapper.weights_in(losses, pairs)]
    return found


def behaviour(subject: Subject, configuration: Configuration) -> list[torch.Tensor]:
    """All that an option can change: values, objective, weights and gradients over a few steps."""
    wrapper = subject.build(configuration)
    found: list[torch.Tensor] = []
    for seed in (11, 12, 13):
        if subject.coupled(configuration):
            observe(wrapper, pairs_for(subject, configuration, seed=seed))
        pairs, wanted = leaves(pairs_for(subject, configuration, seed=seed))
        found += results(wrapper, pairs)
        value = wrapper.reduce(wrapper.per_pair(logistic(), pairs), pairs)
        if value.requires_grad:
            grads = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
            found += [grad if grad is not None else torch.zeros(()) for grad in grads]
        logged = wrapper.metrics(values_of(wrapper, pairs), pairs)
        found += [torch.as_tensor(value) for value in logged.values()]
        if not subject.coupled(configuration):
            observe(wrapper, pairs_for(subject, configuration, seed=seed))
    return found


def card_of(card: Card) -> RobustCard:
    """A wrapper's card."""
    assert isinstance(card, RobustCard)
    return card
