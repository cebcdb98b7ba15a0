"""Trimmed loss: the highest losses of a step, which may be wrong labels, are dropped.

    L = mean of the N − ⌈εN⌉ lowest ℓ_i

The outlier-removing half of DORO (Zhai et al., arXiv 2106.06142), known as the trimmed loss. ε = 0 is the mean. One
value always stays: of a single pair nothing is dropped. N is the whole optimizer step over all ranks; values that tie
for the last place share it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Verified
from alignzoo_robust.cvar import DORO
from alignzoo_robust.tails import with_ties, without_highest


class TrimOptions(Options):
    """ε, a share of the step's values."""

    epsilon: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the step that is dropped, from the highest loss down",
        json_schema_extra={"search": [0.0, 0.5]},
    )


class Trim(RobustWrapper):
    """The mean of all but the highest of the step's values ``(N,)``."""

    options: TrimOptions

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        present = without_highest(with_ties(losses), self.options.epsilon)
        return present / present.sum()

    def objective(self, losses: torch.Tensor) -> torch.Tensor:
        return (self.weights(losses) * losses).sum()

    def metrics(self, losses: torch.Tensor, pairs: Any) -> dict[str, torch.Tensor]:
        """The highest loss that counts, and the number of values dropped."""
        present = self.weights(losses)
        return {"highest_loss": losses[present > 0].max(), "dropped": (present == 0).sum().to(losses.dtype)}


CARD = Card(
    kind="robust",
    name="trim",
    target=f"{__name__}:Trim",
    options=TrimOptions,
    summary="Trimmed mean: drops the highest losses of the step",
    formula="mean of the N − ⌈εN⌉ lowest ℓ_i",
    paper=DORO,
    family="label noise",
    addresses=frozenset({"label-noise"}),
    batch_coupled=True,
    aggregates=True,
    verified=(
        Verified(against="golden values", test="test_step_wrappers_equal_golden_values"),
        Verified(against="its limit ε = 0: the mean", test="test_limits_are_the_mean"),
    ),
)
