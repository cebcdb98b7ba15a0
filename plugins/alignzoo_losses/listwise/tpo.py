"""Triple Preference Optimization: a gold response to imitate, and a preference between two others.

    ℓ = −log σ( β·[ log π(y_w|x) − log π(y_l|x) ] ) + α·NLL,     NLL = −log π(y_gold|x)/n

Saeidi et al., *Triple Preference Optimization*, arXiv 2405.16681, in TRL's form. Log-probs are sums over response
tokens, in nats; β is in 1/nats, and there is no reference model. Of a ranked list, the gold response is the best, the
chosen one the second and the rejected one the last; others are not read. Of two responses the better one is gold as
well, which is CPO. n is, with ``nll: tokens``, the average length of the step's gold responses, so that the step's NLL
is a mean over their tokens, as in TRL; with ``average`` it is each response's own length, and with ``sum`` it is 1.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Verified
from alignzoo_losses.listwise.triples import PAPER, ImitationOptions, imitation, triples


class TPOOptions(ImitationOptions):
    """β, in 1/nats, and the likelihood term."""

    beta: float = Field(0.01, gt=0, description="scale of the difference of log-probs")


class TPO(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are β·log π."""

    options: TPOOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        gold, chosen, rejected = triples(responses)
        margin = self.options.beta * (responses.logps[chosen] - responses.logps[rejected])
        return -F.logsigmoid(margin) + imitation(responses, gold, self.options)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).logps


CARD = Card(
    kind="loss",
    name="tpo",
    target=f"{__name__}:TPO",
    options=TPOOptions,
    summary="TPO: imitation of a gold response, preference between two others",
    family="listwise losses",
    formula="−log σ(β·(log π_w − log π_l)) + α·NLL_gold",
    paper=PAPER,
    reads="lists",
    swaps=False,
    verified=(
        Verified(against="TRL 1.16", test="test_tpo_equals_trl_on_its_own_batch"),
        Verified(against="cpo where k = 2", test="test_tpo_of_two_is_cpo"),
    ),
)
