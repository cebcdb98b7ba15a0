"""χ²-DRO: the worst mean loss over reweightings of the step within a χ² ball.

    L = min_η C·√(mean_i (ℓ_i − η)₊²) + η,     C = √(1 + (1/α − 1)²)

Hashimoto et al., *Fairness Without Demographics in Repeated Loss Minimization*, arXiv 1806.08010; with the constant of
DORO (Zhai et al., arXiv 2106.06142), where α is the smallest share that a group of the data may have. The weights are
proportional to (ℓ − η*)₊. α = 1 is the mean, with η* → −∞; η* is found in closed form, not by a search that would have
to be bounded there. N is the whole optimizer step over all ranks.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_robust.tails import with_ties, worst_case


class Chi2DROOptions(Options):
    """α, a share of the data."""

    alpha: float = Field(
        0.5,
        gt=0,
        le=1,
        description="smallest share of the data that the worst case may be",
        json_schema_extra={"search": [0.2, 1.0]},
    )


class Chi2DRO(RobustWrapper):
    """The worst weighted mean of the step's values ``(N,)``; the weights are the gradient, by the envelope theorem."""

    options: Chi2DROOptions

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return worst_case(with_ties(losses), self.options.alpha, torch.ones_like(losses))

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return (self.weights(losses) * losses).sum()


CARD = Card(
    kind="robust",
    name="chi2-dro",
    target=f"{__name__}:Chi2DRO",
    options=Chi2DROOptions,
    summary="Chi-square DRO: the worst weighted mean within a χ² ball",
    formula="min_η √(1 + (1/α − 1)²)·√(mean_i (ℓ_i − η)₊²) + η",
    paper=Paper(
        title="Fairness Without Demographics in Repeated Loss Minimization",
        arxiv="1806.08010",
        authors=("Hashimoto, Tatsunori B.", "Srivastava, Megha", "Namkoong, Hongseok", "Liang, Percy"),
        venue="ICML 2018",
    ),
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="DORO's authors' RuntianZ/doro@b8b1317", test="test_tails_equal_the_authors"),
        Verified(against="golden values", test="test_step_wrappers_equal_golden_values"),
        Verified(against="a numerical search for η*", test="test_chi2_weights_solve_the_dual"),
        Verified(against="its limit α = 1: the mean", test="test_limits_are_the_mean"),
    ),
)
