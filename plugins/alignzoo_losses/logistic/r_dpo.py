"""Length-regularised DPO.

    ℓ = −log σ( β·h + α·(|y_w| − |y_l|) )
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Park, Rafailov, Ermon, Finn, *Disentangling Length from Quality in Direct Preference Optimization*, arXiv 2403.19159.
Log-probs are sums over response tokens, in nats; β is in 1/nats, α in 1/tokens. The sign follows from the objective:
the optimum of E[r(x,y) − α·|y|] − β·KL has r = β·(log π − log π_ref) + α·|y| (and a constant), so a longer chosen
response needs a smaller log-ratio to be worth its label, and less is learned about length.

Not the robust rDPO (``--robust rdpo``).
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class RDPOOptions(Options):
    """β, in 1/nats, and α, in 1/tokens."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    alpha: float = Field(0.1, ge=0, description="price of a token of length")


class RDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref) + α·|y|."""

    options: RDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        beta, alpha = self.options.beta, self.options.alpha
        return beta * chosen + alpha * pairs.chosen_lengths, beta * rejected + alpha * pairs.rejected_lengths


CARD = Card(
    kind="loss",
    name="r-dpo",
    target=f"{__name__}:RDPO",
    options=RDPOOptions,
    summary="R-DPO: DPO with a penalty on response length",
    family="logistic losses",
    formula="−log σ(β·h + α·(|y_w| − |y_l|))",
    paper=Paper(
        title="Disentangling Length from Quality in Direct Preference Optimization",
        arxiv="2403.19159",
        authors=("Park, Ryan", "Rafailov, Rafael", "Ermon, Stefano", "Finn, Chelsea"),
        venue="Findings of ACL 2024",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"length-bias"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(
            against="the optimum of the length-penalised objective, in closed form",
            test="test_r_dpo_is_least_at_the_policy_that_pays_for_length",
        ),
    ),
)
