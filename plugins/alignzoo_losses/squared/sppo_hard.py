"""Self-Play Preference Optimization with hard win probabilities.

    ℓ = ( a − 1/(2β) )² + ( b + 1/(2β) )²,     a, b = log π(y|x) − log π_ref(y|x) of y_w and y_l

Wu et al., *Self-Play Preference Optimization for Language Model Alignment*, arXiv 2405.00675, eq. 4.7 with P = 1
for the chosen and 0 for the rejected response; β = 1/η. Log-probs are sums over response tokens, in nats; β is in
1/nats. The authors' code halves the value; TRL's ``sppo_hard``, like this one, does not.

At the default β values are near 5·10⁵: learning rate and gradient clipping must suit, and bf16 log-probs lose the
difference between pairs.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class SPPOHardOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.001, gt=0, description="1/η: the target log-ratios are ±1/(2·beta)")


class SPPOHard(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: SPPOHardOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        target = 1 / (2 * self.options.beta)
        return (chosen - target) ** 2 + (rejected + target) ** 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="sppo-hard",
    target=f"{__name__}:SPPOHard",
    options=SPPOHardOptions,
    summary="SPPO: squared loss towards a target log-ratio of each response",
    family="squared losses",
    formula="(a − 1/(2β))² + (b + 1/(2β))², a and b the log-ratios",
    paper=Paper(
        title="Self-Play Preference Optimization for Language Model Alignment",
        arxiv="2405.00675",
        authors=("Wu, Yue", "Sun, Zhiqing", "Yuan, Huizhuo", "Ji, Kaixuan", "Yang, Yiming", "Gu, Quanquan"),
        venue="ICLR 2025",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement", "overoptimisation"}),
    aliases=("sppo",),
    verified=(
        Verified(against="TRL 1.16", test="test_squared_losses_equal_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="ipo where b = −a", test="test_sppo_is_ipo_of_opposite_log_ratios"),
    ),
)
