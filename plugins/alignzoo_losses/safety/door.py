"""DOOR: likely refusals and unlikely harmful responses, next to the likelihood of harmless ones.

    harmful pair    ℓ = α·( −log π(y_w|x) − (2/β)·log σ(−β·b) ),     b = log π(y_l|x) − log π_ref(y_l|x)
    harmless pair   ℓ = (1 − α)·( −log π(y_w|x) )

Zhao et al., *Improving LLM Safety Alignment with Dual-Objective Optimization*, arXiv 2503.03710. Log-probs are sums
over response tokens, in nats; β is in 1/nats. A pair is harmful if its rejected response is unsafe: y_w is the refusal
then, where only the preferred response is unsafe the sides are exchanged, and where both are, only the rejected one is
unlearned. All other pairs are the paper's utility data, of which the chosen response is imitated.

The authors average harmful and harmless data apart, one of each per step; here a step's objective is the mean over its
pairs, so their shares in the data matter. Half of their refusals follow a prefix of the harmful response, which is a
change of the data and not of the loss. There is no opposite label: an unsafe response is not meant to become likely.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.safety.refusals import refuse_and_unlearn, towards_safety


class DOOROptions(Options):
    """α, and β in 1/nats."""

    alpha: float = Field(0.2, gt=0, lt=1, description="weight of harmful pairs; 1 − alpha is that of harmless ones")
    beta: float = Field(0.5, gt=0, description="how soon an unlikely harmful response stops counting")


class DOOR(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: DOOROptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        turned = towards_safety(pairs)
        return refuse_and_unlearn(turned, -turned.chosen_logps, self.options.alpha, self.options.beta)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="door",
    target=f"{__name__}:DOOR",
    options=DOOROptions,
    summary="DOOR: refusals learned and harmful responses unlearned",
    family="safety losses",
    formula="α·(−log π_w − (2/β)·log σ(−β·b)) if y_l is unsafe, else (1 − α)·(−log π_w)",
    paper=Paper(
        title="Improving LLM Safety Alignment with Dual-Objective Optimization",
        arxiv="2503.03710",
        authors=("Zhao, Xuandong", "Cai, Will", "others"),
        venue="ICML 2025",
    ),
    needs=frozenset({"reference", "safety"}),
    swaps=False,
    addresses=frozenset({"safety"}),
    verified=(
        Verified(against="the authors' wicai24/DOOR-Alignment@88eedea", test="test_door_equals_the_authors"),
        Verified(against="closed form on the golden pairs", test="test_losses_equal_golden_values"),
    ),
)
