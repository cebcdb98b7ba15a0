"""DPO whose margin counts by how certain the reference is, after Mallows' ranking model.

    ℓ = −log σ( β·φ·h ),     φ = −c·log H
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Chen et al., *MallowsPO: Fine-Tune Your LLM with Preference Dispersions*, arXiv 2405.14953. H is the reference's mean
entropy per token, as a share of log V, averaged over the two responses; it stands for the dispersion of preferences
among people: where the reference is sure, a margin is worth more. Log-probs are sums over response tokens, in nats; β
is in 1/nats.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.adaptive.dispersion import negative_log_dispersion


class MallowsDPOOptions(Options):
    """β, in 1/nats, and c."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    dispersion_scale: float = Field(0.29, gt=0, description="c: 1 over the mean of −log H makes φ 1 on average")


class MallowsDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·φ·(log π − log π_ref)."""

    options: MallowsDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        scale = self.options.beta * negative_log_dispersion(pairs, self.options.dispersion_scale).to(chosen.dtype)
        return scale * chosen, scale * rejected

    def metrics(self, pairs: PairBatch) -> dict[str, torch.Tensor]:
        """The mean of φ; c should bring it near 1."""
        return {"dispersion": negative_log_dispersion(pairs, self.options.dispersion_scale).mean()}


CARD = Card(
    kind="loss",
    name="mallows-dpo",
    target=f"{__name__}:MallowsDPO",
    options=MallowsDPOOptions,
    summary="Mallows-DPO: DPO weighted by how certain the reference is",
    family="adaptive losses",
    formula="−log σ(β·φ·h), φ = −c·log H, H the reference's normalised entropy",
    paper=Paper(
        title="MallowsPO: Fine-Tune Your LLM with Preference Dispersions",
        arxiv="2405.14953",
        authors=("Chen, Haoxian", "Zhao, Hanyang", "Lam, Henry", "Yao, David", "Tang, Wenpin"),
        venue="ICLR 2025",
    ),
    needs=frozenset({"reference", "reference-entropy"}),
    verified=(
        Verified(against="the authors' haoxian-chen/MallowsPO@c188a2e", test="test_adapted_losses_equal_the_authors"),
        Verified(against="dpo where φ = 1", test="test_mallows_dpo_is_dpo_at_unit_dispersion"),
    ),
)
