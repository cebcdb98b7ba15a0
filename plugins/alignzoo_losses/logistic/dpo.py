"""Direct Preference Optimization.

    ℓ = −log σ( β·[ (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x)) ] )

Rafailov et al., *Direct Preference Optimization: Your Language Model is Secretly a Reward Model*, arXiv 2305.18290,
eq. 7. Log-probs are sums over response tokens, in nats; β is the strength of the KL constraint, 1/nats.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class DPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class DPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: DPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="dpo",
    target=f"{__name__}:DPO",
    options=DPOOptions,
    summary="DPO: logistic loss on the difference of log-ratios",
    family="logistic losses",
    formula="−log σ(β·[(log π_w − log π_ref,w) − (log π_l − log π_ref,l)])",
    paper=Paper(
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        arxiv="2305.18290",
        authors=(
            "Rafailov, Rafael",
            "Sharma, Archit",
            "Mitchell, Eric",
            "Ermon, Stefano",
            "Manning, Christopher D.",
            "Finn, Chelsea",
        ),
        venue="NeurIPS 2023",
    ),
    needs=frozenset({"reference"}),
    aliases=("sigmoid",),
    verified=(
        Verified(
            against="the authors' eric-mitchell/direct-preference-optimization@f8b8c0f",
            test="test_losses_equal_the_authors",
        ),
        Verified(against="TRL 1.16", test="test_losses_equal_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
