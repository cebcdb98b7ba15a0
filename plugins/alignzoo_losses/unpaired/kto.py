"""Kahneman–Tversky Optimization: individually labelled responses, desirable or undesirable.

    ℓ = λ_D·( 1 − σ( β·(a − z₀) ) )   of a desirable response,   λ_U·( 1 − σ( β·(z₀ − a) ) )   of an undesirable one
    a = log π(y|x) − log π_ref(y|x),     z₀ = max( 0, mean of a over responses y' to other prompts )

Ethayarajh, Xu, Muennighoff, Jurafsky, Kiela, *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv
2402.01306, eq. 8. z₀ estimates KL(π ‖ π_ref), in nats, and no gradient flows through it; β is in 1/nats. The paper
keeps λ_D·n_D : λ_U·n_U between 1 and 4/3, where n are the numbers of desirable and undesirable responses.

Deviations from published code, and why: z₀ is the mean over the KL responses of the whole optimizer step, all ranks
and micro-batches, clamped after the mean (TRL averages per-rank, per-micro-batch values, HALOs divides by the number
of non-zero log-ratios); mismatched responses are fixed per data row, by prompt, so that two responses to one prompt
never count as a mismatch.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.contract.responses import KL, POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.unpaired.labels import labels_of


class KTOOptions(Options):
    """β, in 1/nats, and the weights of the two labels."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    desirable_weight: float = Field(
        1.0, gt=0, description="λ_D: weight of desirable responses", json_schema_extra={"search": [0.5, 2.0]}
    )
    undesirable_weight: float = Field(
        1.0, gt=0, description="λ_U: weight of undesirable responses", json_schema_extra={"search": [0.5, 2.0]}
    )


class KTO(PreferenceLoss):
    """Values and rewards ``(N,)`` of the policy's responses; the rewards are β·(log π − log π_ref)."""

    options: KTOOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        """``(N,)``.

        Raises:
            ValueError: there is no label, or no KL response.
        """
        labels = labels_of(responses)
        # Undesirable: 1 − σ(β(z₀ − a)); the sign of the label flips the difference.
        gain = labels * (self.rewards(responses) - self.options.beta * self.kl(responses))
        values = torch.sigmoid(-gain)
        desirable, undesirable = self.options.desirable_weight * values, self.options.undesirable_weight * values
        return torch.where(labels > 0, desirable, undesirable)

    def kl(self, responses: ResponseBatch) -> torch.Tensor:
        """z₀ ``()``, in nats, detached."""
        mismatched = responses.of_role(KL)
        if len(mismatched) == 0:
            raise ValueError("no KL responses: the method's card must declare needs={'mismatched'}")
        return mismatched.log_ratios().detach().mean().clamp(min=0)

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()

    def metrics(self, responses: ResponseBatch) -> dict[str, torch.Tensor]:
        return {"kl": self.kl(responses)}


CARD = Card(
    kind="loss",
    name="kto",
    target=f"{__name__}:KTO",
    options=KTOOptions,
    summary="KTO: unpaired desirable and undesirable responses, relative to the KL",
    family="losses of single responses",
    addresses=frozenset({"label-noise"}),
    formula="λ_D·(1 − σ(β(a − z₀))), λ_U·(1 − σ(β(z₀ − a))); z₀ = max(0, mean a of mismatched responses)",
    paper=Paper(
        title="KTO: Model Alignment as Prospect Theoretic Optimization",
        arxiv="2402.01306",
        authors=("Ethayarajh, Kawin", "Xu, Winnie", "Muennighoff, Niklas", "Jurafsky, Dan", "Kiela, Douwe"),
        venue="ICML 2024",
    ),
    needs=frozenset({"reference", "labels", "mismatched"}),
    reads="responses",
    batch_coupled=True,
    verified=(
        Verified(against="TRL 1.16", test="test_losses_of_responses_equal_trl_on_its_own_batch"),
        Verified(against="golden values", test="test_kto_equals_golden_values"),
    ),
)
