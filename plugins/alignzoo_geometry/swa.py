"""Stochastic Weight Averaging, beside any controller.

    θ̄ = mean of θ after steps start + interval, start + 2·interval, ...     evaluated and saved: θ̄

Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, *Averaging Weights Leads to Wider Optima and Better Generalization*,
arXiv 1803.05407, algorithm 1 without its cyclic learning rate: the run's schedule is used, so choose one that does not
end at 0 (``--schedule constant``). Batch-norm statistics, which the authors update at the end, do not occur in these
models. θ̄ is kept in fp32.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.plugin import GeometryCard, Options, Paper, Verified
from alignzoo_geometry.average import Averaging


class SWAOptions(Options):
    """Schedule of the average; steps are optimizer steps."""

    interval: int = Field(1, ge=1, description="optimizer steps between averaged weights")
    start: int = Field(0, ge=0, description="optimizer steps before averaging starts")


class SWA(Averaging):
    """A running mean, evaluated and saved in place of the weights."""

    name = "swa"
    options: SWAOptions

    def share(self, n: int) -> float:
        """Weight of the current θ in the n-th update: 1/n."""
        return 1 / n


CARD = GeometryCard(
    api=1,
    name="swa",
    target=f"{__name__}:SWA",
    options=SWAOptions,
    summary="SWA: running mean of the weights, evaluated and saved in their place",
    family="weight averages",
    addresses=frozenset({"distribution-shift"}),
    formula="θ̄ = mean of θ over steps",
    paper=Paper(
        title="Averaging Weights Leads to Wider Optima and Better Generalization",
        arxiv="1803.05407",
        authors=(
            "Izmailov, Pavel",
            "Podoprikhin, Dmitrii",
            "Garipov, Timur",
            "Vetrov, Dmitry",
            "Wilson, Andrew Gordon",
        ),
        venue="UAI 2018",
    ),
    companion=True,
    averages=True,
    sharded=True,
    verified=(Verified(against="torch.optim.swa_utils", test="test_swa_equals_torch"),),
)
