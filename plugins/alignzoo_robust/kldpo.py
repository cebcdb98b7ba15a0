"""KLDPO: pairs with a high loss count exponentially more.

    L = (1/N) Σ_i sg[min(c, exp((ℓ_i − mean ℓ)/τ))]·ℓ_i

Xu et al., *Robust LLM Alignment via Distributionally Robust Direct Preference Optimization*, arXiv 2502.01930: the
approximate worst case over data within a KL ball, for preferences that differ from those of the training data. The
opposite of ``drdpo``, which counts high losses less. The weights are constants (sg) that do not sum to 1, so L is not
their weighted mean, and τ, in the unit of the loss, must be about as small as the spread of the losses to have an
effect. The cap c = 10 is the authors' code's. N and the mean are of the whole optimizer step over all ranks.
"""

from __future__ import annotations

import math

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified


class KLDPOOptions(Options):
    """τ, in the unit of the loss; the cap has none."""

    tau: float = Field(1.0, gt=0, description="temperature: smaller values count high losses more")
    cap: float = Field(10.0, ge=1, description="upper limit of a pair's weight")


class KLDPO(RobustWrapper):
    """Weights the step's values ``(N,)`` by their own exponentials, detached."""

    options: KLDPOOptions

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        losses = losses.detach()
        exponents = (losses - losses.mean()) / self.options.tau
        return exponents.clamp(max=math.log(self.options.cap)).exp() / len(losses)

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return (self.weights(losses) * losses).sum()


CARD = Card(
    kind="robust",
    name="kldpo",
    target=f"{__name__}:KLDPO",
    options=KLDPOOptions,
    summary="KLDPO: upweights high losses exponentially, for shifted preferences",
    formula="mean_i sg[min(c, exp((ℓ_i − mean ℓ)/τ))]·ℓ_i",
    paper=Paper(
        title="Robust LLM Alignment via Distributionally Robust Direct Preference Optimization",
        arxiv="2502.01930",
        authors=("Xu, Zaiyan", "Vemuri, Sushil", "Panaganti, Kishan", "others"),
    ),
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    batch_coupled=True,
    aggregates=True,
    expected_failures={"gradcheck": "the weights are constants of the step, as in the paper's algorithm"},
    verified=(
        Verified(
            against="the authors' TheBlackCat22/distributionally_robust_dpo@d6dc68b",
            test="test_kldpo_equals_the_authors",
        ),
        Verified(against="golden values", test="test_step_wrappers_equal_golden_values"),
        Verified(against="its limit τ → ∞: the mean", test="test_limits_are_the_mean"),
    ),
)
