"""Calibrated DRO: exponential weights for the worst case, calibrated to target-like responses.

    L = λ·log (1/N) Σ_i exp(w_i·ℓ_i/λ),     w_i = mean over i's responses of c/(α·c + (1 − α)·(1 − c))

*Leveraging Robust Optimization for LLM Alignment under Distribution Shifts*, arXiv 2504.05831, there "DoRA", which is
the name of a LoRA variant too. c is the probability that a response looks like the target distribution, from a
classifier: the method reads the run's **scores as c**. ``scores="logit"`` takes them as its logits instead, c = σ(s);
probabilities outside [0, 1] count as the nearer bound, and ``outside`` logs how many there are. α is the share of
target data, ½ for a pair (the authors' α = 1/n of n responses). c = 1/2 gives w = 1.

High losses and target-like responses count **more**, the opposite of ``drdpo``; this reading needs ℓ ≥ 0. λ has the
unit of the loss. N is the whole optimizer step over all ranks. The authors' weight 1/(α + α_k(1 − c)/c) is written
without a division by c. It is listwise there (RRHF, LIRE, Plackett-Luce); here it goes around any loss.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_robust.fields import mean_of_responses


class CalibratedDROOptions(Options):
    """λ (``temperature``), in the unit of the loss; α, a share of the data; and what the scores are."""

    temperature: float = Field(1.0, gt=0, description="temperature: smaller values count high losses more")
    alpha: float = Field(0.5, gt=0, le=1, description="share of target-like data; 1 ignores the scores")
    scores: Literal["probability", "logit"] = Field(
        "probability", description="what the classifier's scores are", json_schema_extra={"search": []}
    )


class CalibratedDRO(RobustWrapper):
    """The log-mean-exp of the step's values ``(N,)``, each scaled by its calibration."""

    options: CalibratedDROOptions

    def calibration(self, pairs: Any, count: int) -> torch.Tensor:
        """w ``(N,)``."""
        alpha = self.options.alpha

        def of_response(scores: torch.Tensor) -> torch.Tensor:
            c = scores.sigmoid() if self.options.scores == "logit" else scores.clamp(0, 1)
            return c / (alpha * c + (1 - alpha) * (1 - c)) if alpha < 1 else torch.ones_like(c)

        return mean_of_responses(pairs, of_response, count)

    def reduce(self, losses: torch.Tensor, pairs: Any) -> torch.Tensor:
        scaled = self.calibration(pairs, len(losses)).to(losses.dtype) * losses / self.options.temperature
        return self.options.temperature * (torch.logsumexp(scaled, 0) - math.log(len(losses)))

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The mean calibration, and the share of values with a score that is no probability."""
        found = {"calibration": self.calibration(pairs, len(losses)).mean()}
        if self.options.scores == "probability":
            outside = mean_of_responses(pairs, lambda s: ((s < 0) | (s > 1)).double(), len(losses))
            found["outside"] = (outside > 0).double().mean()
        return found


CARD = Card(
    kind="robust",
    name="dro-calibrated",
    target=f"{__name__}:CalibratedDRO",
    options=CalibratedDROOptions,
    summary="Calibrated DRO: high losses of target-like responses count more",
    formula="λ·log mean_i exp(w_i·ℓ_i/λ), w = mean c/(α·c + (1 − α)·(1 − c))",
    paper=Paper(
        title="Leveraging Robust Optimization for LLM Alignment under Distribution Shifts",
        arxiv="2504.05831",
        authors=("Zhu, Mingye", "Liu, Yi", "Fu, Zheren", "Zhang, Yongdong", "Mao, Zhendong"),
        venue="NeurIPS 2025",
    ),
    aliases=("dora-dro",),
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    needs=frozenset({"scores"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="golden values", test="test_calibrated_dro_equals_golden_value"),
        Verified(against="the authors' weights, written with a division", test="test_calibration_equals_the_authors"),
    ),
)
