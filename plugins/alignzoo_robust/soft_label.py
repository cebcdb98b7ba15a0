"""Soft labels: label confidence comes from the reward margin; the rest counts for the opposite label.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w)

s are the scores of the run's reward (``--reward``); scores and the temperature T share a unit, k is dimensionless. For
DPO this is the cross-entropy −p·log σ(βh) − (1 − p)·log σ(−βh). With the geometry ``shapo-token`` it is ShaPO at
reward level (*Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control*, arXiv 2602.07340, whose
code has k = 10 and T = 1), but it composes with any controller: ``--robust soft-label --geometry sam``.

Deviations from the released code, and why: any loss that is defined on swapped pairs, not only DPO; ``log σ`` instead
of ``log(σ + 1e-12)``, whose gradient vanishes beyond |βh| ≈ 20; scores are computed once before training, not in every
pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class SoftLabelOptions(Options):
    """How scores map to labels."""

    k: float = Field(10.0, gt=0, description="slope of the soft label in the score difference")
    temperature: float = Field(
        1.0, gt=0, description="divides the score difference; same unit as the scores", json_schema_extra={"search": []}
    )


class SoftLabel(RobustWrapper):
    """Mixes each pair's value ``(B,)`` with its value under the opposite label."""

    options: SoftLabelOptions

    def soft_labels(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """p ``(N,)`` from scores ``(N,)``: 1 if the chosen response is certainly better."""
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

    def per_pair(self, loss: Values, pairs: PairBatch) -> torch.Tensor:
        """ℓ' ``(B,)``; at p = 0 or 1, value and gradient are exactly those of the single label."""
        p = self.of_pairs(pairs)
        return _share(loss, pairs, p) + _share(loss, pairs.swap(), 1 - p)

    def metrics(self, losses: torch.Tensor, pairs: PairBatch) -> dict[str, torch.Tensor]:
        """The mean of p, and the share of pairs whose label the reward contradicts."""
        p = self.of_pairs(pairs)
        return {"soft_label_mean": p.mean(), "soft_label_disagrees": (p < 0.5).double().mean()}


def _share(loss: Values, pairs: PairBatch, weight: torch.Tensor) -> torch.Tensor:
    """``weight·ℓ``; where the weight is 0, value and gradient are ignored: they may be infinite."""
    counts = weight > 0

    def cut_off(value: torch.Tensor) -> torch.Tensor:
        return torch.where(counts if value.dim() == 1 else counts[:, None], value, value.detach())

    fields: dict[str, Any] = {name: cut_off(value) for name, value in pairs.present().items() if name in DIFFERENTIABLE}
    values = weight * loss(replace(pairs, **fields))
    return torch.where(counts, values, torch.zeros_like(values))


CARD = Card(
    kind="robust",
    name="soft-label",
    target=f"{__name__}:SoftLabel",
    options=SoftLabelOptions,
    summary="Soft labels: label confidence comes from the reward margin",
    formula="p = σ(k·(s_w − s_l)/T); p·ℓ(w, l) + (1 − p)·ℓ(l, w)",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control",
        arxiv="2602.07340",
        authors=(
            "Yang, Yonghui",
            "Tao, Wenjian",
            "Liu, Jilong",
            "Zhu, Xingyu",
            "Fang, Junfeng",
            "Huang, Weibiao",
            "Wu, Le",
            "Hong, Richang",
            "Chua, Tat-Seng",
        ),
        venue="ICML 2026",
    ),
    family="label noise",
    addresses=frozenset({"label-noise", "safety"}),
    needs=frozenset({"reward", "swap"}),
    relabels=True,
    around=frozenset({"pairs"}),
    verified=(
        Verified(against="the authors' liujilong0116/ShaPO@dea6efb, the loss", test="test_losses_equal_shapos"),
        Verified(against="closed form for DPO, value and gradient", test="test_soft_labels_under_dpo"),
        Verified(against="limits p = 0 and p = 1: the hard-label loss", test="test_sure_labels_are_hard_labels"),
    ),
)
