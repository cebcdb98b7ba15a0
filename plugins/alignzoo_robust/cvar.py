"""CVaR: the mean of the highest losses of a step.

    L = mean of the ⌈αN⌉ highest ℓ_i

The conditional value at risk, as Zhai et al. train with it in *DORO: Distributional and Outlier Robust Optimization*,
arXiv 2106.06142: robust to a shift towards any part of the data that makes up a share of at least α. α = 1 is the mean.
High losses may also be wrong labels: ``doro`` drops the very highest first. N is the whole optimizer step over all
ranks; values that tie for the last place share it, so the order of the pairs does not matter.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_robust.tails import tail_mean, with_ties

DORO = Paper(
    title="DORO: Distributional and Outlier Robust Optimization",
    arxiv="2106.06142",
    authors=("Zhai, Runtian", "Dan, Chen", "Kolter, J. Zico", "Ravikumar, Pradeep"),
    venue="ICML 2021",
)


class CVaROptions(Options):
    """α, a share of the step's values."""

    alpha: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the step that counts, from the highest loss down",
        json_schema_extra={"search": [0.2, 1.0]},
    )


class CVaR(RobustWrapper):
    """The mean of the highest of the step's values ``(N,)``."""

    options: CVaROptions

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        return tail_mean(with_ties(losses), self.options.alpha, torch.ones_like(losses))

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return (self.weights(losses) * losses).sum()


CARD = Card(
    kind="robust",
    name="cvar",
    target=f"{__name__}:CVaR",
    options=CVaROptions,
    summary="CVaR: the mean of the highest losses of the step",
    formula="mean of the ⌈αN⌉ highest ℓ_i",
    paper=DORO,
    family="distributional robustness",
    addresses=frozenset({"distribution-shift"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="the authors' RuntianZ/doro@b8b1317", test="test_tails_equal_the_authors"),
        Verified(against="golden values", test="test_step_wrappers_equal_golden_values"),
        Verified(against="its limit α = 1: the mean", test="test_limits_are_the_mean"),
    ),
)
