"""From a plan's methods to the objective of a run."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.contract.loss import LossCard
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Aggregating, Term, Wrapping
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import instantiate


def build_objective(
    losses: Sequence[Method], wrappers: Sequence[Method] = (), aggregation: Method | None = None
) -> Objective:
    """A new objective of these methods: the first loss under the wrappers, plus the other losses.

    Args:
        aggregation: of the first loss; None for sums, which the others read in any case.
    """
    aggregating = None
    if aggregation is not None:
        method = instantiate(aggregation.card, aggregation.options)
        aggregating = Aggregating(aggregation.card.name, method, "hidden-states" in aggregation.needs)
    return Objective(
        [_term(method, None if i else aggregating) for i, method in enumerate(losses)],
        [Wrapping(instantiate(method.card, method.options), method.card.name, method.couples) for method in wrappers],
    )


def _term(method: Method, aggregation: Aggregating | None) -> Term:
    card = method.card
    assert isinstance(card, LossCard)
    loss = instantiate(card, method.options)
    return Term(loss, card.name, card.reads, method.weight, aggregation, method.couples)
