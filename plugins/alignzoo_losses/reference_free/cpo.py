"""Contrastive Preference Optimization: DPO under a uniform reference, plus the likelihood of the chosen response.

    ℓ = −log σ( β·[ log π(y_w|x) − log π(y_l|x) ] ) + α·NLL,     NLL = −log π(y_w|x)/|y_w|

Xu et al., *Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation*,
arXiv 2401.08417. Log-probs are sums over response tokens, in nats; β is in 1/nats. The paper writes the NLL as a sum,
its code and TRL average it over tokens; the choice is the option ``nll``. They average over all tokens of a batch, here
every pair has its own average, so values do not depend on one another. Log-probs that the run aggregates otherwise
(``--aggregation``, ``sum`` included) are never divided: both terms read them as they are. There is no opposite label:
the likelihood of the other response is not meant to rise.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class CPOOptions(Options):
    """β, in 1/nats, and the likelihood term."""

    beta: float = Field(0.1, gt=0, description="scale of the reward")
    alpha: float = Field(1.0, ge=0, description="weight of the chosen response's negative log-likelihood")
    nll: Literal["average", "sum"] = Field(
        "average", description="average or sum that negative log-likelihood over the response's tokens"
    )

    def under(self) -> frozenset[str]:
        return frozenset({"sum"} if self.nll == "sum" else ())  # elsewhere it would equal average


class CPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·log π."""

    options: CPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        likelihood = pairs.chosen_logps if self.options.nll == "sum" else pairs.per_token()[0]
        return -F.logsigmoid(chosen - rejected) - self.options.alpha * likelihood

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.options.beta * pairs.chosen_logps, self.options.beta * pairs.rejected_logps


CARD = Card(
    kind="loss",
    name="cpo",
    target=f"{__name__}:CPO",
    options=CPOOptions,
    summary="CPO: reference-free DPO plus likelihood of the chosen response",
    family="reference-free losses",
    formula="−log σ(β·(log π_w − log π_l)) + α·NLL_w",
    paper=Paper(
        title="Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
        arxiv="2401.08417",
        authors=("Xu, Haoran", "others"),
        venue="ICML 2024",
    ),
    swaps=False,
    verified=(
        Verified(
            against="TRL 1.16, its preference term", test="test_losses_without_reference_equal_trl_on_its_own_batch"
        ),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
