"""TPO-L: Triple Preference Optimization with length-normalised rewards and a target margin.

    ℓ = −log σ( β·[ log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l| ] − γ ) + α·NLL

Saeidi et al., *Triple Preference Optimization*, arXiv 2405.16681, in TRL's form (``tpo-l``). β is in tokens per nat; γ
is absolute, a margin of β times the averages. The gold, chosen and rejected response of a list and the NLL are those of
``tpo``; another ``--aggregation`` replaces the averages.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Verified
from alignzoo_losses.listwise.tables import averages
from alignzoo_losses.listwise.triples import PAPER, ImitationOptions, imitation, triples


class TPOLOptions(ImitationOptions):
    """β, in tokens per nat, γ, and the likelihood term."""

    beta: float = Field(0.01, gt=0, description="scale of the difference of average log-probs")
    gamma: float = Field(0.5, ge=0, description="target margin of the rewards")


class TPOL(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are β times average log-probs."""

    options: TPOLOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        gold, chosen, rejected = triples(responses)
        rewards = self.options.beta * averages(responses)
        margin = rewards[chosen] - rewards[rejected] - self.options.gamma
        return -F.logsigmoid(margin) + imitation(responses, gold, self.options)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * averages(responses.of_role(POLICY))


CARD = Card(
    kind="loss",
    name="tpo-l",
    target=f"{__name__}:TPOL",
    options=TPOLOptions,
    summary="TPO-L: TPO on average log-probs with a target margin",
    family="listwise losses",
    formula="−log σ(β·(log π_w/|y_w| − log π_l/|y_l|) − γ) + α·NLL_gold",
    paper=PAPER,
    aggregation="mean",
    reads="lists",
    swaps=False,
    verified=(
        Verified(against="TRL 1.16", test="test_tpo_equals_trl_on_its_own_batch"),
        Verified(against="simpo where k = 2 and α = 0", test="test_tpo_l_without_imitation_is_simpo"),
    ),
)
