"""Supervised fine-tuning on demonstrations, chosen responses of pairs, the best of ranked lists, desirable responses.

    ℓ = −log π(y|x)

Log-probs are sums over response tokens, in nats. Per response (the default), the step's objective is the mean of ℓ
over its responses; per token, it is Σ −log π(y|x) / Σ |y|, so long responses count more. That is a mean over the
*step's* tokens, however it is split into micro-batches and ranks, not a mean of per-row means.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.contract.responses import ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Verified


class SFTOptions(Options):
    """The unit of the mean."""

    mean: Literal["responses", "tokens"] = Field(
        "responses", description="mean over responses, or over all tokens of the step"
    )

    def couples(self) -> bool:
        return self.mean == "tokens"  # the step's number of tokens

    def under(self) -> frozenset[str]:
        return frozenset({"sum"} if self.mean == "tokens" else ())


class SFT(PreferenceLoss):
    """Values and rewards ``(N,)`` of the responses to imitate; the rewards are their log-probs."""

    options: SFTOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        if self.options.mean == "responses":
            return -responses.logps
        if responses.aggregation not in (None, "sum"):
            raise ValueError(f"--loss.mean tokens needs summed log-probs, not aggregation {responses.aggregation!r}")
        return -responses.logps / responses.lengths.to(responses.logps.dtype).mean()

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return responses.logps


CARD = Card(
    kind="loss",
    name="sft",
    target=f"{__name__}:SFT",
    options=SFTOptions,
    summary="SFT: negative log-likelihood of the chosen responses",
    family="imitation and unlearning",
    formula="−log π(y_w|x)",
    reads="chosen",
    swaps=False,
    verified=(
        Verified(against="transformers' own language-modelling loss", test="test_sft_equals_transformers"),
        Verified(against="golden values", test="test_sft_equals_golden_values"),
    ),
)
