"""Aggregations: from the log-probs of a response's tokens to the log-prob of the response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from alignzoo.contract.card import Card, Need
from alignzoo.contract.chosen import Choice
from alignzoo.contract.method import Method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.errors import AlignzooError, IncompatibleError
from alignzoo.lazy import torch

SUM = "sum"
"""What the model gives; a run that asks for nothing else needs no aggregation for it."""
FROM_SUMS = (SUM, "mean")
"""What a loss can take from sums and lengths by itself (:meth:`PairBatch.per_token`)."""


class AggregationCard(Card):
    """The facts of an aggregation."""

    kind: Literal["aggregation"] = "aggregation"


def default(cards: Mapping[str, Sequence[Card]], needs: frozenset[Need]) -> tuple[str, ...]:
    """That of the first loss, if one was found; the others read sums."""
    name = getattr(next(iter(cards["loss"]), None), "aggregation", SUM)
    if name == SUM:
        return ()
    return (f"alignzoo:{name}" if name in FROM_SUMS else name,)


def conflicts(choice: Choice, launch: str) -> Iterator[AlignzooError]:
    """Losses beside the first that could not have the log-probs that they read."""
    for loss in choice["loss"][1:]:
        name = getattr(loss.card, "aggregation", SUM)
        if name not in FROM_SUMS:
            yield IncompatibleError(
                f"loss {loss.card.name!r} reads log-probs aggregated by {name!r}, and only the first loss has them so",
                hint=f"name it first: --loss {loss.card.name} --loss {choice['loss'][0].card.name}",
            )


class Aggregation(Method):
    """One log-prob per response from those of its tokens, computed alike for policy and reference."""

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        """``(R,)``, differentiable in the log-probs; called once for the policy and once for the reference.

        Args:
            logps: ``(R,)`` sums over tokens.
            token_logps: ``(R, T)``, 0 outside the mask; None unless the card needs ``token-logps``.
            responses: lengths, mask and prompts, the same in both calls. Do not use its log-probs: they may be the
                other model's.
        """
        raise NotImplementedError
