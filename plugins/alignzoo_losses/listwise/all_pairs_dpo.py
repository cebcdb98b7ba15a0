"""DPO on all pairs of a ranked list.

    ℓ = mean over i < j of −log σ( s_i − s_j ),     s = β·(log π(y|x) − log π_ref(y|x))

The loss of Rafailov et al., *Direct Preference Optimization: Your Language Model is Secretly a Reward Model*, arXiv
2305.18290, eq. 7, on every response against each worse one: the baseline of listwise losses. The mean is over the pairs
of a *prompt*, so every prompt counts once; under ``--loss dpo`` on lists, every pair does, and a prompt with eight
responses has the weight of 28 prompts with two. Log-probs are sums over response tokens, in nats; β is in 1/nats.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, Verified
from alignzoo_losses.listwise.tables import DPO_PAPER, better_than


class AllPairsDPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class AllPairsDPO(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are β·(log π − log π_ref)."""

    options: AllPairsDPOOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        places, real = responses.lists()
        s = self.options.beta * responses.log_ratios()[places]
        pairs = better_than(real)
        losses = -F.logsigmoid(s[:, :, None] - s[:, None, :]) * pairs
        return losses.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()


CARD = Card(
    kind="loss",
    name="all-pairs-dpo",
    target=f"{__name__}:AllPairsDPO",
    options=AllPairsDPOOptions,
    summary="DPO on all pairs of a list, the mean per prompt",
    family="listwise losses",
    formula="mean over i < j of −log σ(s_i − s_j), s = β·(log π − log π_ref), best first",
    paper=DPO_PAPER,
    needs=frozenset({"reference"}),
    reads="lists",
    verified=(
        Verified(against="golden values", test="test_listwise_losses_equal_golden_values"),
        Verified(against="dpo on the pairs of each list", test="test_all_pairs_dpo_is_the_mean_of_dpo_per_prompt"),
        Verified(against="dpo where k = 2", test="test_listwise_losses_of_two_are_losses_of_pairs"),
    ),
)
