"""Simple Preference Optimization with a reference-free, length-normalised reward.

    ℓ = −log σ( β·[ log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l| ] − γ ),     γ = β·(γ/β)

Meng, Xia, Chen, *SimPO: Simple Preference Optimization with a Reference-Free Reward*, arXiv 2405.14734, eq. 6.
|y| is the response's length in tokens; another ``--aggregation`` replaces the average. As in the authors' code the
target margin is given as the *ratio* γ/β; TRL's ``simpo_gamma`` is the absolute γ.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class SimPOOptions(Options):
    """β, in tokens per nat, and γ/β, in nats per token."""

    beta: float = Field(2.0, gt=0, description="scale of the per-token reward")
    gamma_beta_ratio: float = Field(
        0.25, ge=0, description="target reward margin γ as a multiple of beta", json_schema_extra={"search": [0.0, 1.0]}
    )


class SimPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β times the average log-prob of a response's tokens."""

    options: SimPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        gamma = self.options.beta * self.options.gamma_beta_ratio
        return -F.logsigmoid(chosen - rejected - gamma)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.per_token()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="simpo",
    target=f"{__name__}:SimPO",
    options=SimPOOptions,
    summary="SimPO: reference-free loss on average log-probs with a target margin",
    family="reference-free losses",
    formula="−log σ(β·(log π_w/|y_w| − log π_l/|y_l|) − γ)",
    paper=Paper(
        title="SimPO: Simple Preference Optimization with a Reference-Free Reward",
        arxiv="2405.14734",
        authors=("Meng, Yu", "Xia, Mengzhou", "Chen, Danqi"),
        venue="NeurIPS 2024",
    ),
    addresses=frozenset({"length-bias"}),
    aggregation="mean",
    verified=(
        Verified(against="the authors' princeton-nlp/SimPO@1b3e8f3", test="test_losses_equal_the_authors"),
        Verified(against="TRL 1.16", test="test_simpo_equals_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
