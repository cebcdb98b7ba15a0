"""Aggregations: from the log-probs of a response's tokens to the log-prob of the response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    """Aggregations that the first loss is not defined under, and losses beside it that could not have the log-probs
    that they read."""
    first = choice["loss"][0]
    for aggregation in choice["aggregation"]:
        if first.under and aggregation.card.name not in first.under:
            yield IncompatibleError(
                f"loss {first.card.name!r} is defined for log-probs aggregated by {' or '.join(sorted(first.under))}, "
                f"not by {aggregation.card.name!r}",
                hint=f"leave out --aggregation {aggregation.card.name}, or choose another loss",
                rule=f"the loss is defined under {' or '.join(sorted(first.under))} only",
            )
    for loss in choice["loss"][1:]:
        name = getattr(loss.card, "aggregation", SUM)
        if name not in FROM_SUMS:
            yield IncompatibleError(
                f"loss {loss.card.name!r} reads log-probs aggregated by {name!r}, and only the first loss has them so",
                hint=f"name it first: --loss {loss.card.name} --loss {choice['loss'][0].card.name}",
                rule="only the first loss has log-probs that are neither sums nor means",
            )


@dataclass(frozen=True)
class TokenView:
    """The tokens of a micro-batch, from which an aggregation can weigh them.

    Attributes:
        responses: detached, with ``token_mask``; the other fields as far as their needs are declared.
        row_ids: ``(P,)`` int64, the row number in the data of each prompt.
        hidden: ``(R, T, H)`` fp32 (fp64 of an fp64 model), detached: the policy's last hidden states at the positions
            that predict the tokens, 0 outside the mask; None unless the card needs ``hidden-states``.
        generator: of response r: the same for this response however a step is cut, in both passes of a step, and after
            a resume; another one in every step.
    """

    responses: ResponseBatch
    row_ids: torch.Tensor
    hidden: torch.Tensor | None
    generator: Callable[[int], torch.Generator]


class Aggregation(Method):
    """One log-prob per response from those of its tokens, computed alike for policy and reference."""

    def token_weights(self, tokens: TokenView) -> torch.Tensor | None:
        """Constants ``(R, T)`` for the tokens of a micro-batch, which :meth:`__call__` finds as
        ``responses.token_weights`` for policy and reference; None (the default) for no such field. Computed without
        gradients, in every forward pass; responses of other prompts may not matter."""
        return None

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        """``(R,)``, differentiable in the log-probs; called once for the policy and once for the reference.

        Args:
            logps: ``(R,)`` sums over tokens.
            token_logps: ``(R, T)``, 0 outside the mask; None unless the card needs ``token-logps``.
            responses: lengths, mask, prompts and weights of the tokens, the same in both calls. Do not use its
                policy log-probs: they may be the other model's.
        """
        raise NotImplementedError
