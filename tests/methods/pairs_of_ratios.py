"""Pairs with given log-ratios to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignzoo import PairBatch


def pairs_of(chosen: torch.Tensor | Sequence[float], rejected: torch.Tensor | Sequence[float]) -> PairBatch:
    """One pair per log-ratio, in nats; the reference gives every response of ten tokens −30."""
    a, b = (torch.as_tensor(side, dtype=torch.float64) for side in (chosen, rejected))
    reference, length = torch.full_like(a.detach(), -30.0), torch.full_like(a.detach(), 10.0)
    return PairBatch(
        chosen_logps=reference + a,
        rejected_logps=reference + b,
        chosen_lengths=length,
        rejected_lengths=length,
        ref_chosen_logps=reference,
        ref_rejected_logps=reference,
    )
