"""Alignment via Optimal Transport, on pairs.

    ℓ = −(1−ε)·log σ(β·δ) − ε·log σ(−β·δ),     δ = m − (m_ref of the same rank)
    m = log π(y_w|x) − log π(y_l|x),     m_ref = log π_ref(y_w|x) − log π_ref(y_l|x)

Melnyk et al., *Distributional Preference Alignment of LLMs via Optimal Transport*, arXiv 2406.05882. Log-probs are sums
over response tokens, in nats; β is in 1/nats. Both margins of the step's pairs are sorted, so the loss asks that the
*distribution* of the policy's margins dominates that of the reference's, and not that each pair's margin grows. The
value of a pair is the one at the rank of its own margin; the gradient flows through the sort.

Ranks are those of the whole optimizer step, all ranks and micro-batches (TRL sorts a device's micro-batch, which with
one pair each is DPO). Wrappers that weight pairs weight quantiles here.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.adaptive.quantiles import of_same_rank


class AOTOptions(Options):
    """β, in 1/nats, and ε."""

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint to the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="ε: probability that a label is wrong", json_schema_extra={"search": [0.0, 0.4]}
    )


class AOT(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: AOTOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        """``(B,)``.

        Raises:
            ValueError: there is no reference.
        """
        if pairs.ref_chosen_logps is None or pairs.ref_rejected_logps is None:
            raise ValueError("no reference log-probs: the method's card must declare needs={'reference'}")
        margins = pairs.chosen_logps - pairs.rejected_logps
        of_reference = pairs.ref_chosen_logps - pairs.ref_rejected_logps
        scaled = self.options.beta * (margins - of_same_rank(margins, of_reference))
        smoothing = self.options.label_smoothing
        return -(1 - smoothing) * F.logsigmoid(scaled) - smoothing * F.logsigmoid(-scaled)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="aot",
    target=f"{__name__}:AOT",
    options=AOTOptions,
    summary="AOT: logistic loss on margins matched with the reference's by rank",
    family="adaptive losses",
    formula="−log σ(β·(m − m_ref of the same rank)), m = log π_w − log π_l",
    paper=Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        arxiv="2406.05882",
        authors=("Melnyk, Igor", "Mroueh, Youssef", "others"),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    batch_coupled=True,
    verified=(
        Verified(against="TRL 1.16", test="test_aot_equals_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="dpo where the reference's margins are equal", test="test_aot_is_dpo_of_equal_references"),
    ),
)
