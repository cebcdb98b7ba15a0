"""EXO: reverse KL between the policy's and the data's preference for the chosen response.

    ℓ = q·( log q − log(1 − ε) ) + (1 − q)·( log(1 − q) − log ε ),     q = σ(β·h)

Ji et al., *Towards Efficient Exact Optimization of Language Model Alignment*, arXiv 2402.00856, for pairs with soft
labels 1 − ε and ε. h is the difference of log-ratios of response sums, in nats; β is in 1/nats. DPO is the forward KL
of the same two distributions. ε = 0 would be infinite; the loss is least at βh = log((1 − ε)/ε). As q → 0 it tends to
−log ε with a vanishing gradient.
"""

from __future__ import annotations

import math

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class EXOPairOptions(Options):
    """β, in 1/nats, and the softness of labels."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    epsilon: float = Field(1e-3, gt=0, lt=0.5, description="probability that the label is wrong")


class EXOPair(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: EXOPairOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin, epsilon = chosen - rejected, self.options.epsilon
        right = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-epsilon))
        return right + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(epsilon))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="exo-pair",
    target=f"{__name__}:EXOPair",
    options=EXOPairOptions,
    summary="EXO: reverse KL to softened preference labels",
    family="divergences",
    formula="q·log(q/(1−ε)) + (1−q)·log((1−q)/ε), q = σ(βh)",
    paper=Paper(
        title="Towards Efficient Exact Optimization of Language Model Alignment",
        arxiv="2402.00856",
        authors=("Ji, Haozhe", "others"),
        venue="ICML 2024",
    ),
    needs=frozenset({"reference"}),
    aliases=("exo",),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="torch's KL divergence of the two distributions", test="test_exo_is_the_reverse_kl"),
        Verified(against="closed form: least at βh = log((1−ε)/ε), 0 there", test="test_exo_is_least_at_its_target"),
    ),
)
