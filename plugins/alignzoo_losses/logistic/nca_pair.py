"""Noise Contrastive Alignment on pairs.

    ℓ = −log σ(β·a) − ½·log σ(−β·a) − ½·log σ(−β·b),     a, b = log π(y|x) − log π_ref(y|x) of y_w and y_l

Chen et al., *Noise Contrastive Alignment of Language Models with Explicit Rewards*, arXiv 2402.05369. Log-probs
are sums over response tokens, in nats; β is in 1/nats. It acts on each response's likelihood and not on the margin:
a → +∞ costs, so the chosen response settles at a finite log-ratio. It is least at β·a = log 2, b → −∞.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class NCAPairOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint to the reference")


class NCAPair(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: NCAPairOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        noise = F.logsigmoid(-chosen) + F.logsigmoid(-rejected)
        return -F.logsigmoid(chosen) - 0.5 * noise

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="nca-pair",
    target=f"{__name__}:NCAPair",
    options=NCAPairOptions,
    summary="NCA: noise-contrastive likelihood of each response of a pair",
    family="logistic losses",
    formula="−log σ(β·a) − ½·log σ(−β·a) − ½·log σ(−β·b), a and b the log-ratios",
    paper=Paper(
        title="Noise Contrastive Alignment of Language Models with Explicit Rewards",
        arxiv="2402.05369",
        authors=("Chen, Huayu", "He, Guande", "Yuan, Lifan", "Cui, Ganqu", "Su, Hang", "Zhu, Jun"),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    aliases=("nca",),
    verified=(
        Verified(against="TRL 1.16", test="test_logistic_losses_equal_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="its minimum, in closed form", test="test_nca_settles_at_a_finite_log_ratio"),
    ),
)
