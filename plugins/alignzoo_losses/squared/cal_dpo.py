"""Calibrated DPO: a logistic loss on the margin, and squared losses towards target log-ratios.

    ℓ = −log σ(a − b) + ½·[ ( a − 1/(2β) )² + ( b + 1/(2β) )² ],     a, b = log π(y|x) − log π_ref(y|x) of y_w and y_l

Xiao et al., *Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment*, arXiv 2412.14516.
Log-probs are sums over response tokens, in nats; β is in 1/nats and, as in the authors' code, is not in the logistic
term.

Deviation: that code adds the calibration term as its mean over the batch to every row. The mean over pairs is the same;
here each pair has its own, so that wrappers weight it with its pair.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class CalDPOOptions(Options):
    """β, in 1/nats."""

    beta: float = Field(0.001, gt=0, description="the target log-ratios are ±1/(2·beta)")


class CalDPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: CalDPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        target = 1 / (2 * self.options.beta)
        calibration = (chosen - target) ** 2 + (rejected + target) ** 2
        return -F.logsigmoid(chosen - rejected) + 0.5 * calibration

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="cal-dpo",
    target=f"{__name__}:CalDPO",
    options=CalDPOOptions,
    summary="Cal-DPO: DPO with log-ratios calibrated to target values",
    family="squared losses",
    formula="−log σ(a − b) + ½·[(a − 1/(2β))² + (b + 1/(2β))²], a and b the log-ratios",
    paper=Paper(
        title="Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment",
        arxiv="2412.14516",
        authors=("Xiao, Teng", "Yuan, Yige", "Zhu, Huaisheng", "Li, Mingxiao", "Honavar, Vasant G."),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    verified=(
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="dpo at β = 1 and half of sppo-hard", test="test_cal_dpo_is_dpo_and_half_of_sppo"),
    ),
)
