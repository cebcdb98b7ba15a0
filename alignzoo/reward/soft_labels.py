"""Soft labels: how sure a pair's scores are of its label, and the loss under them.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w)

For DPO it is the cross-entropy −p·log σ(βh) − (1 − p)·log σ(−βh). Scores s and temperature T share a unit, k has none.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from alignzoo.contract.card import Options
from alignzoo.contract.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.interfaces import PerPair
from alignzoo.lazy import torch


class SoftLabelOptions(Options):
    """How sharply scores become labels."""

    k: float = Field(10.0, gt=0, description="slope of the soft label in the difference of scores")
    temperature: float = Field(1.0, gt=0, description="unit of the scores: their difference is divided by it")


class SoftLabels:
    """The ``per_pair`` of a method with :class:`SoftLabelOptions`; mixed into wrappers and controllers."""

    options: SoftLabelOptions

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """p ``(N,)`` of scores ``(N,)``: 1 where the chosen response is surely the better one."""
        return torch.sigmoid(self.options.k * (chosen - rejected) / self.options.temperature)

    def of_pairs(self, pairs: PairBatch) -> torch.Tensor:
        """p ``(B,)`` in the dtype of the pairs' log-probs.

        Raises:
            ValueError: the pairs have no scores.
        """
        if pairs.chosen_scores is None or pairs.rejected_scores is None:
            raise ValueError("no scores: the method's card must declare needs={'reward'}")
        dtype = pairs.chosen_logps.dtype
        return self.soft_labels(pairs.chosen_scores.to(dtype), pairs.rejected_scores.to(dtype))

    def per_pair(self, loss: PerPair, pairs: PairBatch) -> torch.Tensor:
        """ℓ' ``(B,)``; with p at 0 or 1 it is the loss of the one label, value and gradient, to the bit."""
        p = self.of_pairs(pairs)
        return _share(loss, pairs, p) + _share(loss, pairs.swap(), 1 - p)


def _share(loss: PerPair, pairs: PairBatch, weight: torch.Tensor) -> torch.Tensor:
    """``weight·ℓ``; where the weight is 0 neither the value nor the gradient is looked at: it may be infinite there."""
    counts = weight > 0

    def cut_off(value: torch.Tensor) -> torch.Tensor:
        return torch.where(counts if value.dim() == 1 else counts[:, None], value, value.detach())

    fields = {name: cut_off(value) for name, value in pairs.present().items() if name in DIFFERENTIABLE}
    values = weight * loss(replace(pairs, **fields))
    return torch.where(counts, values, torch.zeros_like(values))
