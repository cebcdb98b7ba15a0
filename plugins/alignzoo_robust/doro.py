"""DORO: the worst case over the step, after the highest losses have been dropped as outliers.

    L = CVaR_α or χ²_α of the N − ⌈εN⌉ lowest ℓ_i

Zhai et al., *DORO: Distributional and Outlier Robust Optimization*, arXiv 2106.06142. ``inner="cvar"`` is CVaR-DORO,
``"chi2"`` is χ²-DORO, see the wrappers ``cvar`` and ``chi2-dro``; ε = 0 is either of these. α counts what is left. The
number dropped is rounded up (the authors' code rounds down), and one value always stays. N is the whole optimizer step
over all ranks; values that tie for the last place share it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Verified
from alignzoo_robust.cvar import DORO
from alignzoo_robust.tails import tail_mean, with_ties, without_highest, worst_case


class DOROOptions(Options):
    """ε and α, shares of the step's values."""

    epsilon: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the step that is dropped, from the highest loss down",
        json_schema_extra={"search": [0.0, 0.5]},
    )
    alpha: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the rest that the worst case is about",
        json_schema_extra={"search": [0.2, 1.0]},
    )
    inner: Literal["cvar", "chi2"] = Field("cvar", description="worst case over the rest: cvar or chi2")


class DORORobust(RobustWrapper):
    """The worst case over all but the highest of the step's values ``(N,)``."""

    options: DOROOptions

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        losses = with_ties(losses)
        present = without_highest(losses, self.options.epsilon)
        worst = tail_mean if self.options.inner == "cvar" else worst_case
        return worst(losses, self.options.alpha, present)

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return (self.weights(losses) * losses).sum()

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The highest loss that is left, and the number of values dropped."""
        present = without_highest(with_ties(losses), self.options.epsilon)
        return {"highest_loss": losses[present > 0].max(), "dropped": (present == 0).sum().to(losses.dtype)}


CARD = Card(
    kind="robust",
    name="doro",
    target=f"{__name__}:DORORobust",
    options=DOROOptions,
    summary="DORO: drops outliers, then the worst case over the rest",
    formula="CVaR_α or χ²_α of the N − ⌈εN⌉ lowest ℓ_i",
    paper=DORO,
    family="distributional robustness",
    addresses=frozenset({"distribution-shift", "label-noise"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="the authors' RuntianZ/doro@b8b1317", test="test_tails_equal_the_authors"),
        Verified(against="its limit ε = 0: cvar and chi2-dro", test="test_doro_without_outliers"),
    ),
)
