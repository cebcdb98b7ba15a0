"""Soft labels: a pair counts for its label as far as the reward is sure of it, and for the opposite one beyond that.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w)

s are the scores of the run's reward (``--reward``). It is the objective of ``shapo-reward`` without its geometry
(*Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control*, arXiv 2602.07340), for any controller:
``--robust soft-label --geometry sam``.
"""

from __future__ import annotations

from alignzoo.interfaces import RobustWrapper
from alignzoo.plugin import Card, Paper, Verified
from alignzoo.reward.soft_labels import SoftLabelOptions, SoftLabels


class SoftLabel(SoftLabels, RobustWrapper):
    """Mixes each pair's value ``(B,)`` with that under the opposite label."""

    options: SoftLabelOptions


CARD = Card(
    kind="robust",
    name="soft-label",
    target=f"{__name__}:SoftLabel",
    options=SoftLabelOptions,
    summary="Soft labels: each pair's label is as sure as the reward is of it",
    formula="p = σ(k·(s_w − s_l)/T); p·ℓ(w, l) + (1 − p)·ℓ(l, w)",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control", arxiv="2602.07340"
    ),
    needs=frozenset({"reward", "swap"}),
    relabels=True,
    verified=(
        Verified(against="the authors' liujilong0116/ShaPO@dea6efb, the loss", test="test_losses_equal_shapos"),
        Verified(against="closed form for DPO, value and gradient", test="test_soft_labels_under_dpo"),
        Verified(against="limits p = 0 and p = 1: the hard-label loss", test="test_sure_labels_are_hard_labels"),
    ),
)
