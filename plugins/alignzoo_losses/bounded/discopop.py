"""DiscoPOP: a loss found by a language model, a blend of the logistic and the exponential loss.

    ℓ = (1 − k)·( −log σ(t) ) + k·e^{−t},     t = β·h,     k = σ( t/τ )

Lu et al., *Discovering Preference Optimization Algorithms with and for Large Language Models*, arXiv 2406.08414, the
log-ratio modulated loss (LRML). h is the difference of log-ratios of response sums, in nats; β is in 1/nats, τ in the
unit of t. The loss is not convex: it has a local minimum at t ≈ −0.119 and a maximum at t ≈ 0.072, so a pair that is
ranked slightly wrongly can stay so.

TRL evaluates k·e^{−t} as a product, which is 0·∞ for t below −88 in fp32. Here it is one exponential,
exp(log σ(t/τ) − t), which falls to 0 there; that needs τ ≤ 1.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class DiscoPOPOptions(Options):
    """β, in 1/nats, and the temperature of the blend."""

    beta: float = Field(0.05, gt=0, description="strength of the KL constraint to the reference")
    tau: float = Field(0.05, gt=0, le=1, description="temperature at which the margin blends the two losses")


class DiscoPOP(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: DiscoPOPOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        margin = chosen - rejected
        scaled = margin / self.options.tau
        exponential = torch.exp(F.logsigmoid(scaled) - margin)
        return exponential - torch.sigmoid(-scaled) * F.logsigmoid(margin)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="discopop",
    target=f"{__name__}:DiscoPOP",
    options=DiscoPOPOptions,
    summary="DiscoPOP: logistic loss that becomes exponential at positive margins",
    family="bounded losses",
    formula="(1 − k)·(−log σ(t)) + k·e^{−t}, t = βh, k = σ(t/τ)",
    paper=Paper(
        title="Discovering Preference Optimization Algorithms with and for Large Language Models",
        arxiv="2406.08414",
        authors=("Lu, Chris", "others"),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    aliases=("lrml",),
    verified=(
        Verified(against="TRL 1.16", test="test_losses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
