"""DPO-Shift: DPO that counts the rejected response less.

    ℓ = −log σ( β·[ a − λ·b ] ),     a, b = log π(y|x) − log π_ref(y|x) of y_w and y_l

Yang et al., *DPO-Shift: Shifting the Distribution of Direct Preference Optimization*, arXiv 2502.07599.
Log-probs are sums over response tokens, in nats; β is in 1/nats. λ < 1 trades some margin for higher chosen log-probs,
so the loss is no longer a function of the margin. λ is fixed, or changes linearly over the run: from 0.95 to 1, or from
1 to 0.95, for example.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class DPOShiftOptions(Options):
    """β, in 1/nats, and λ at the first and at the last step."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    rejected_weight: float = Field(
        0.95, ge=0, le=1, description="λ: weight of the rejected log-ratio", json_schema_extra={"search": [0.5, 1.0]}
    )
    final_rejected_weight: float | None = Field(
        None, ge=0, le=1, description="λ at the end of the run, approached linearly; by default λ is fixed"
    )


class DPOShift(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: DPOShiftOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - self.rejected_weight(pairs.progress) * rejected)

    def rejected_weight(self, progress: float) -> float:
        """λ where this share of the run's steps has been taken."""
        first, last = self.options.rejected_weight, self.options.final_rejected_weight
        return first if last is None else first + (last - first) * progress

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected

    def metrics(self, pairs: PairBatch) -> dict[str, float]:
        return {"rejected_weight": self.rejected_weight(pairs.progress)}


CARD = Card(
    kind="loss",
    name="dpo-shift",
    target=f"{__name__}:DPOShift",
    options=DPOShiftOptions,
    summary="DPO-Shift: DPO that counts the rejected log-ratio less",
    family="logistic losses",
    formula="−log σ(β·[(log π_w − log π_ref,w) − λ·(log π_l − log π_ref,l)])",
    paper=Paper(
        title="DPO-Shift: Shifting the Distribution of Direct Preference Optimization",
        arxiv="2502.07599",
        authors=("Yang, Xiliang", "others"),
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"displacement"}),
    verified=(
        Verified(against="the authors' Meaquadddd/DPO-Shift@52eebac", test="test_adapted_losses_equal_the_authors"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="dpo where λ = 1", test="test_limits_to_dpo"),
        Verified(against="the linear schedule, in closed form", test="test_dpo_shift_moves_with_the_run"),
    ),
)
