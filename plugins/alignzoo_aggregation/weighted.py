"""What aggregations that weigh tokens have in common: Σ_t w_t · log π(y_t | x, y_<t), w the same for both models."""

from __future__ import annotations

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import Aggregation
from alignzoo.lazy import torch


class Weighted(Aggregation):
    """Sums ``(R,)`` of weighed log-probs; a subclass gives the weights."""

    def __call__(self, logps: torch.Tensor, token_logps: torch.Tensor | None, responses: ResponseBatch) -> torch.Tensor:
        weights = responses.token_weights
        if token_logps is None or weights is None:
            raise ValueError("no log-probs or no weights of tokens: they are made in the forward passes of a run")
        return (weights.to(token_logps.dtype) * token_logps).sum(-1)


def mask_of(responses: ResponseBatch) -> torch.Tensor:
    """``(R, T)``: 1 for a token.

    Raises:
        ValueError: the card does not ask for tokens.
    """
    if responses.token_mask is None:
        raise ValueError("no log-probs of tokens: the method's card must declare needs={'token-logps'}")
    return responses.token_mask
