"""Provably robust DPO: a loss whose expectation under flipped labels is that under clean ones.

    ℓ' = [(1 − ε)·ℓ(w, l) − ε·ℓ(l, w)] / (1 − 2ε)

Ray Chowdhury, Kini and Natarajan, *Provably Robust DPO: Aligning Language Models with Noisy Feedback*, arXiv
2403.00409. If each label is wrong with probability ε, the mean of ℓ' over labels is ℓ under the right one; this holds
for any loss that is defined under the opposite label, not only DPO. ε = ½ is singular. The value is unbounded below:
around DPO it falls without limit as the margin grows; ``re-po`` corrects for noise with a bounded one.
``--loss rdpo`` is ``--loss dpo --robust rdpo``. Unrelated to the length-regularised ``r-dpo``.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Composition, Options, Paper, Verified

PAPER = Paper(
    title="Provably Robust DPO: Aligning Language Models with Noisy Feedback",
    arxiv="2403.00409",
    authors=("Ray Chowdhury, Sayak", "Kini, Anush", "Natarajan, Nagarajan"),
    venue="ICML 2024",
)


class RDPOOptions(Options):
    """ε, a share of pairs."""

    epsilon: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="share of wrong labels that is corrected for",
        json_schema_extra={"search": [0.0, 0.4]},
    )


class RDPO(RobustWrapper):
    """Takes from each value ``(N,)`` what flipped labels add to it in expectation."""

    options: RDPOOptions

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        epsilon = self.options.epsilon
        return ((1 - epsilon) * loss(pairs) - epsilon * loss(pairs.swap())) / (1 - 2 * epsilon)


CARD = Card(
    kind="robust",
    name="rdpo",
    target=f"{__name__}:RDPO",
    options=RDPOOptions,
    summary="Unbiased under label noise: subtracts what flipped labels add",
    formula="[(1 − ε)·ℓ(w, l) − ε·ℓ(l, w)]/(1 − 2ε)",
    paper=PAPER,
    family="label noise",
    addresses=frozenset({"label-noise"}),
    aliases=("robust",),
    needs=frozenset({"swap"}),
    relabels=True,
    around=frozenset({"pairs", "responses", "lists"}),
    verified=(
        Verified(against="TRL 1.16 (`robust`)", test="test_rdpo_equals_trl"),
        Verified(against="golden values", test="test_label_noise_wrappers_equal_golden_values"),
        Verified(against="the clean loss, in expectation over flipped labels", test="test_rdpo_is_unbiased"),
    ),
)

COMPOSITION = Composition(
    name="rdpo",
    summary="Provably robust DPO: DPO corrected for flipped labels",
    paper=PAPER,
    family="logistic losses",
    addresses=frozenset({"label-noise"}),
    aliases=("robust",),
    loss="dpo",
    robust=("rdpo",),
)
