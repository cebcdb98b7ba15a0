"""DPO-Positive: DPO that pays for lowering the chosen response below the reference.

    ℓ = −log σ( β·[ h − λ·max(0, log π_ref(y_w|x) − log π(y_w|x)) ] )
    h = (log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))

Pal et al., *Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive*, arXiv 2402.13228.
Log-probs are sums over response tokens, in nats; β is in 1/nats. The penalty is inside β. λ = 50 is the
authors'; their β, 0.3, is not in any released code.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class DPOPOptions(Options):
    """β, in 1/nats, and λ."""

    beta: float = Field(0.3, gt=0, description="strength of the KL constraint to the reference")
    penalty: float = Field(50.0, ge=0, description="λ: weight of the chosen response's loss of log-prob")


class DPOP(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref), without the penalty."""

    options: DPOPOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        margin = chosen - rejected - self.options.penalty * F.relu(-chosen)
        return -F.logsigmoid(self.options.beta * margin)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="dpop",
    target=f"{__name__}:DPOP",
    options=DPOPOptions,
    summary="DPO-Positive: DPO that penalises a falling chosen log-prob",
    family="logistic losses",
    formula="−log σ(β·[h − λ·max(0, log π_ref,w − log π_w)])",
    paper=Paper(
        title="Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        arxiv="2402.13228",
        authors=(
            "Pal, Arka",
            "Karkhanis, Deep",
            "Dooley, Samuel",
            "Roberts, Manley",
            "Naidu, Siddartha",
            "White, Colin",
        ),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    aliases=("dpo-positive",),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="dpo where λ = 0", test="test_limits_to_dpo"),
    ),
)
