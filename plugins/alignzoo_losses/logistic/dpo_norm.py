"""Length-normalised DPO.

    ℓ = −log σ( β·[ (log π(y_w|x) − log π_ref(y_w|x))/|y_w| − (log π(y_l|x) − log π_ref(y_l|x))/|y_l| ] )

Lambert et al., *Tülu 3: Pushing Frontiers in Open Language Model Post-Training*, arXiv 2411.15124. |y| is the
response's length in tokens, EOS counted; β is in tokens per nat, so it is some fifty times that of DPO. Another
``--aggregation`` replaces the average.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class DPONormOptions(Options):
    """β, in tokens per nat."""

    beta: float = Field(5.0, gt=0, description="scale of the per-token log-ratios")


class DPONorm(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β times the average log-ratio of a response's tokens."""

    options: DPONormOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios_per_token()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="dpo-norm",
    target=f"{__name__}:DPONorm",
    options=DPONormOptions,
    summary="Length-normalised DPO: logistic loss on per-token log-ratios",
    family="logistic losses",
    formula="−log σ(β·[(log π_w − log π_ref,w)/|y_w| − (log π_l − log π_ref,l)/|y_l|])",
    paper=Paper(
        title="Tülu 3: Pushing Frontiers in Open Language Model Post-Training",
        arxiv="2411.15124",
        authors=("Lambert, Nathan", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"length-bias"}),
    aggregation="mean",
    aliases=("sigmoid-norm",),
    verified=(
        Verified(against="TRL 1.16", test="test_logistic_losses_equal_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
