"""Fields of a batch per value of its loss, whatever the loss reads."""

from __future__ import annotations

from typing import Any

from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch

POLICY = 0
"""The role of responses that have a value, as opposed to KL responses."""


def groups_of(batch: Any, count: int) -> torch.Tensor:
    """``(N,)`` int64: the group of each value.

    Args:
        count: the number of values, N: that of the pairs, of the policy's responses, or of the prompts.

    Raises:
        ValueError: the batch has no groups.
    """
    if batch.groups is None:
        raise ValueError("no groups: the method's card must declare needs={'groups'}")
    groups: torch.Tensor = batch.groups
    if isinstance(batch, PairBatch) or len(groups) == count:
        return groups
    own = batch.of_role(POLICY)
    return groups_of(own, count) if len(own) == count else own.groups[_firsts(own)]


def mean_of_responses(batch: Any, of_response: Any, count: int) -> torch.Tensor:
    """``(N,)``: the mean over the responses of each value.

    Args:
        of_response: from scores of responses to the number per response.
        count: the number of values, N.

    Raises:
        ValueError: the batch has no scores.
    """
    if isinstance(batch, PairBatch):
        if batch.chosen_scores is None or batch.rejected_scores is None:
            raise ValueError("no scores: the method's card must declare needs={'scores'}")
        return (of_response(batch.chosen_scores) + of_response(batch.rejected_scores)) / 2
    own = batch.of_role(POLICY)
    if own.scores is None:
        raise ValueError("no scores: the method's card must declare needs={'scores'}")
    values: torch.Tensor = of_response(own.scores)
    if len(values) == count:
        return values
    _, prompts, sizes = torch.unique_consecutive(own.prompt, return_inverse=True, return_counts=True)
    return values.new_zeros(len(sizes)).index_add(0, prompts, values) / sizes


def _firsts(responses: Any) -> torch.Tensor:
    """Where each prompt's responses begin."""
    sizes = torch.unique_consecutive(responses.prompt, return_counts=True)[1]
    return sizes.cumsum(0) - sizes
