"""Pairs by the safety of their responses, and the objective that the DOOR losses share."""

from __future__ import annotations

from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo_losses.imitation.npo import negative_preference


def towards_safety(pairs: PairBatch) -> PairBatch:
    """The same pairs with their sides exchanged where only the rejected response is safe.

    Raises:
        ValueError: responses have no safety label.
    """
    safe, other_safe = safety(pairs)
    turned = ~safe & other_safe
    index = torch.arange(len(pairs), device=turned.device) + len(pairs) * turned
    return PairBatch.cat([pairs, pairs.swap()]).rows(index)


def safety(pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B,)`` bool each: whether the chosen and the rejected responses are labelled safe.

    Raises:
        ValueError: there is no label.
    """
    if pairs.chosen_safe is None or pairs.rejected_safe is None:
        raise ValueError("no safety labels: the method's card must declare needs={'safety'}")
    return pairs.chosen_safe > 0.5, pairs.rejected_safe > 0.5


def refuse_and_unlearn(pairs: PairBatch, refusal: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """``(B,)``: α·(refusal + NPO) of pairs with an unsafe rejected response, (1 − α)·(−log π_w) of the others.

    Args:
        pairs: turned :func:`towards_safety`.
        refusal: ``(B,)`` what it costs that the safe response is unlikely; left out where both are unsafe.
    """
    safe, other_safe = safety(pairs)
    _, rejected = pairs.log_ratios()
    unlearned = negative_preference(rejected, beta)
    harmful = alpha * (torch.where(safe, refusal, torch.zeros_like(refusal)) + unlearned)
    return torch.where(other_safe, (1 - alpha) * -pairs.chosen_logps, harmful)
