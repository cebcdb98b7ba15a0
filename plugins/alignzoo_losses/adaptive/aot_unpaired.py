"""Alignment via Optimal Transport, on the two sets of responses.

    ℓ = −(1−ε)·log σ(β·δ) − ε·log σ(−β·δ),     δ = a − (b of the same rank)
    a, b = log π(y|x) − log π_ref(y|x) of the chosen and of the rejected responses

Melnyk et al., *Distributional Preference Alignment of LLMs via Optimal Transport*, arXiv 2406.05882. Log-probs are sums
over response tokens, in nats; β is in 1/nats. The log-ratios of the step's chosen and of its rejected responses are
sorted, so the loss asks that the *distribution* of the former dominates that of the latter; which of them answer the
same prompt does not matter. The value of a pair is the one at the rank of its chosen response; the gradient flows
through both sorts.

Ranks are those of the whole optimizer step, all ranks and micro-batches (TRL sorts a device's micro-batch). Older
versions of TRL call this ``aot_pair``. Wrappers that weight pairs weight quantiles here.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.adaptive.quantiles import of_same_rank


class AOTUnpairedOptions(Options):
    """β, in 1/nats, and ε."""

    beta: float = Field(0.01, gt=0, description="strength of the KL constraint to the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="ε: probability that a label is wrong", json_schema_extra={"search": [0.0, 0.4]}
    )


class AOTUnpaired(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are β·(log π − log π_ref)."""

    options: AOTUnpairedOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        scaled = chosen - of_same_rank(chosen, rejected)
        smoothing = self.options.label_smoothing
        return -(1 - smoothing) * F.logsigmoid(scaled) - smoothing * F.logsigmoid(-scaled)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


CARD = Card(
    kind="loss",
    name="aot-unpaired",
    target=f"{__name__}:AOTUnpaired",
    options=AOTUnpairedOptions,
    summary="Unpaired AOT: chosen and rejected log-ratios matched by rank",
    family="adaptive losses",
    formula="−log σ(β·(a − b of the same rank)), a and b the log-ratios",
    paper=Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        arxiv="2406.05882",
        authors=("Melnyk, Igor", "Mroueh, Youssef", "others"),
        venue="NeurIPS 2024",
    ),
    needs=frozenset({"reference"}),
    batch_coupled=True,
    aliases=("aot-pair",),
    verified=(
        Verified(against="TRL 1.16", test="test_aot_equals_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
        Verified(against="itself under another pairing", test="test_aot_unpaired_does_not_read_the_pairing"),
    ),
)
