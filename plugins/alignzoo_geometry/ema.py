"""Exponential moving average of the weights, beside any controller.

    θ̄ ← d·θ̄ + (1 − d)·θ    after each ``interval`` steps,     evaluated and saved: θ̄

Polyak, Juditsky, *Acceleration of Stochastic Approximation by Averaging*, SIAM J. Control Optim. 30 (1992), with the
exponential weights that are usual in deep learning. Training continues with θ; only evaluation and the saved model use
θ̄. The first average is θ itself, ``interval`` steps after ``start``. With ``warm_up`` the decay is
min(d, (1 + n)/(10 + n)) at the n-th update, so a short run does not stay at its starting point. θ̄ is kept in fp32.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.plugin import GeometryCard, Options, Verified
from alignzoo_geometry.average import Averaging


class EMAOptions(Options):
    """Decay and schedule of the average; steps are optimizer steps."""

    decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="decay: share of the old average kept at each update",
        json_schema_extra={"search": [0.9, 0.999]},
    )
    warm_up: bool = Field(True, description="use a lower decay for the first updates")
    interval: int = Field(1, ge=1, description="optimizer steps between updates")
    start: int = Field(0, ge=0, description="optimizer steps before averaging starts")


class EMA(Averaging):
    """A moving average, evaluated and saved in place of the weights."""

    name = "ema"
    options: EMAOptions

    def share(self, n: int) -> float:
        """Weight of the current θ in the n-th update: 1 in the first."""
        if n == 1:
            return 1.0
        decay = self.options.decay
        return 1 - (min(decay, (1 + n) / (10 + n)) if self.options.warm_up else decay)


CARD = GeometryCard(
    api=1,
    name="ema",
    target=f"{__name__}:EMA",
    options=EMAOptions,
    summary="EMA: moving average of the weights, evaluated and saved in their place",
    family="weight averages",
    formula="θ̄ ← d·θ̄ + (1 − d)·θ",
    companion=True,
    averages=True,
    sharded=True,
    verified=(Verified(against="torch.optim.swa_utils", test="test_ema_equals_torch"),),
)
