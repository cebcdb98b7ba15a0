"""Margins of the reference, and samples matched by rank."""

from __future__ import annotations

from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch


def reference_margins(pairs: PairBatch) -> torch.Tensor:
    """``(B,)``: log π_ref(y_w|x) − log π_ref(y_l|x), in nats; constants of the step.

    Raises:
        ValueError: there is no reference.
    """
    if pairs.ref_chosen_logps is None or pairs.ref_rejected_logps is None:
        raise ValueError("no reference log-probs: the method's card must declare needs={'reference'}")
    return pairs.ref_chosen_logps - pairs.ref_rejected_logps


def of_same_rank(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """``(B,)``: for each of ``values``, the one of ``others`` that has its rank: the optimal transport between two
    samples on the line; differentiable in ``others``."""
    ranks = values.detach().argsort(stable=True).argsort(stable=True)
    return others.sort().values[ranks]
