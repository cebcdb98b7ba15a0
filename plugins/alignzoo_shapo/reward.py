"""ShaPO, reward level: the worst case over a small subspace of the weights, of a loss that agrees with a reward.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w),     then the step of ``shapo-token`` on ℓ'

s are the scores of the run's reward (``--reward``; a cost model counts negatively), so that a pair whose label the
reward contradicts is pulled the other way, and one that it is unsure of hardly at all. For DPO ℓ' is the soft-label
cross-entropy −p·log σ(βh) − (1 − p)·log σ(−βh). ℓ' lies around the loss, inside of all wrappers. *Revisiting Robustness
for LLM Safety Alignment via Selective Geometry Control*, arXiv 2602.07340, whose code has k = 10 and T = 1.

Where this deviates from the released code, and why: any loss that has a meaning on swapped pairs, and not DPO alone;
``log σ`` in place of ``log(σ + 1e-12)``, whose gradient is 0 beyond |βh| of about 20; scores once before training, and
not in every pass. For the perturbation see ``shapo-token``.

Every step logs ``soft_label_mean`` (p) and ``soft_label_disagrees`` (the share of the pairs with p < 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.interfaces import StepLoss
from alignzoo.plugin import Card, Paper, Verified
from alignzoo.reward.soft_labels import SoftLabelOptions, SoftLabels
from alignzoo_shapo.token import ShaPOToken, ShaPOTokenOptions

if TYPE_CHECKING:
    from alignzoo.step.context import StepContext


class ShaPORewardOptions(SoftLabelOptions, ShaPOTokenOptions):
    """Those of ``shapo-token``, and how sharply scores become labels."""


class ShaPOReward(SoftLabels, ShaPOToken):
    """The step of ``shapo-token`` on soft labels."""

    name = "shapo-reward"
    options: ShaPORewardOptions

    def step(self, ctx: StepContext) -> StepLoss:
        loss = super().step(ctx)
        p = self.of_pairs(loss.pairs)
        ctx.log("soft_label_mean", p.mean())
        ctx.log("soft_label_disagrees", (p < 0.5).double().mean())
        return loss


CARD = Card(
    kind="geometry",
    name="shapo-reward",
    target=f"{__name__}:ShaPOReward",
    options=ShaPORewardOptions,
    summary="ShaPO at reward level: shapo-token on labels as sure as the reward is of them",
    formula="p = σ(k·(s_w − s_l)/T); ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w); the step of shapo-token on ℓ'",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control", arxiv="2602.07340"
    ),
    needs=frozenset({"reward", "swap"}),
    passes=2,
    sharded=True,
    relabels=True,
    verified=(
        Verified(against="the authors' liujilong0116/ShaPO@dea6efb, the loss", test="test_losses_equal_shapos"),
        Verified(against="closed form for DPO, value and gradient", test="test_soft_labels_under_dpo"),
        Verified(against="limits p = 0 and p = 1: the hard-label loss", test="test_sure_labels_are_hard_labels"),
        Verified(against="shapo-token under the soft-label wrapper", test="test_shapo_reward_is_its_parts"),
    ),
)
