"""wDPO: soft label flips where the loss would gain, then the highest losses are drawn in (winsorised).

    z = ℓ(l, w) − ℓ(w, l), constants throughout but for ℓ itself; N values in the step
    π = clip(ρ_f·N·sparsemax((−z)⁺/τ_f), 0, 1),   what was clipped goes to the other values in proportion
    ℓ' = (1 − π)·ℓ(w, l) + π·ℓ(l, w)
    T = the q-quantile of ℓ',   r = clip(ρ_w·N·(ℓ' − T)⁺/Σ(ℓ' − T)⁺, 0, 1),   ℓ'' = (1 − r)·ℓ' + r·T
    ρ_w = 0.02 + (ρ_max − 0.02)·mean σ(−z/mean|z|)

*wDPO: Winsorized Direct Preference Optimization for Robust LLM Alignment*, arXiv 2603.07211, by the authors of ShaPO;
not ``wdpo``, the Wasserstein method. Around DPO z = βh. Flips begin at ``start``, a share of the run's steps; before,
π = 0 and ρ_w = ``early``. The statistics are of the whole optimizer step over all ranks (per micro-batch in their
code).

Sparsemax is sparse only if gains spread by about 1: around DPO with |z| < 1 it also flips rightly ordered pairs, as in
the authors' code. ``strict`` flips only pairs that gain. ρ_f = 0.15 is the code's.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignzoo.interfaces import RobustWrapper, Values
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_robust.tails import NEAR, with_ties

FLOOR = 0.02
"""The least ρ_w after the start, as in the authors' code."""


class WinsorOptions(Options):
    """Shares of the step's values, but for τ_f, which has the unit of the loss."""

    rho_f: float = Field(
        0.15,
        ge=0,
        le=1,
        description="share of the labels that are flipped, at most",
        json_schema_extra={"search": [0.0, 0.4]},
    )
    tau_f: float = Field(1.0, gt=0, description="temperature of the flips: smaller values choose fewer pairs")
    quantile: float = Field(
        0.7,
        ge=0,
        le=1,
        description="quantile of the losses above which they are drawn in",
        json_schema_extra={"search": [0.5, 0.95]},
    )
    rho_max: float = Field(
        0.5,
        ge=0,
        le=1,
        description="upper limit of the share that is drawn in, after the start",
        json_schema_extra={"search": [0.2, 0.8]},
    )
    early: float = Field(
        0.15,
        ge=0,
        le=1,
        description="share that is drawn in before the start",
        json_schema_extra={"search": [0.0, 0.4]},
    )
    start: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the run's steps before flips begin",
        examples=[0.0],
        json_schema_extra={"search": [0.0, 0.6]},
    )
    strict: bool = Field(False, description="flip only pairs whose loss falls by it")


class Winsor(RobustWrapper):
    """Flips and winsorises the values ``(N,)`` of a step."""

    options: WinsorOptions

    def per_pair(self, loss: Values, pairs: Any) -> torch.Tensor:
        given, opposite = loss(pairs), loss(pairs.swap())
        margins = (opposite - given).detach()
        margins = torch.where(margins.abs() > NEAR * given.abs().max().clamp(min=1), margins, 0)
        started = pairs.progress >= self.options.start
        if started:
            flips = self.flips(margins)
            given = (1 - flips) * given + flips * opposite
        share, limit = self.winsor(with_ties(given), self.budget(margins) if started else self.options.early)
        return (1 - share) * given + share * limit

    def flips(self, margins: torch.Tensor) -> torch.Tensor:
        """π ``(N,)``."""
        gains = (-margins).clamp(min=0)
        if not bool((gains > 0).any()):
            return torch.zeros_like(gains)
        shares = sparsemax(gains / self.options.tau_f)
        if self.options.strict:
            shares = torch.where(gains > 0, shares, 0)
        budget = self.options.rho_f * len(gains)
        flips = (budget * shares).clamp(max=1)
        free = torch.where(flips < 1, shares, 0)
        left = (budget * shares.sum() - flips.sum()).clamp(min=0)
        return (flips + left * free / free.sum().clamp(min=1e-12)).clamp(max=1)

    def budget(self, margins: torch.Tensor) -> torch.Tensor:
        """ρ_w ``()`` after the start; never above ρ_max."""
        scale = margins.abs().mean().clamp(min=1e-12)
        floor = min(FLOOR, self.options.rho_max)
        return floor + (self.options.rho_max - floor) * torch.sigmoid(-margins / scale).mean()

    def winsor(self, losses: torch.Tensor, budget: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """r ``(N,)`` and T ``()``."""
        limit = torch.quantile(losses, self.options.quantile)
        excess = (losses - limit).clamp(min=0)
        share = budget * len(losses) * excess / excess.sum().clamp(min=1e-12)
        return share.clamp(max=1), limit


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """The Euclidean projection ``(N,)`` of scores onto the probability simplex."""
    scores = scores - scores.max()
    falling = torch.sort(scores, descending=True).values
    sums, places = falling.cumsum(0), torch.arange(1, len(scores) + 1, device=scores.device)
    size = (1 + places * falling > sums).sum().clamp(min=1)
    return (scores - (sums[size - 1] - 1) / size).clamp(min=0)


CARD = Card(
    kind="robust",
    name="wdpo-winsor",
    target=f"{__name__}:Winsor",
    options=WinsorOptions,
    summary="Winsorised DPO (wDPO): soft label flips, and clipped high losses",
    formula="(1 − r)·ℓ' + r·T, ℓ' = (1 − π)·ℓ(w, l) + π·ℓ(l, w), T a quantile of ℓ'",
    paper=Paper(
        title="wDPO: Winsorized Direct Preference Optimization for Robust LLM Alignment",
        arxiv="2603.07211",
        authors=("Liu, Jilong", "Yang, Yonghui", "Shao, Pengyang", "Ma, Haokai", "Qin, Wei", "Hong, Richang"),
    ),
    family="label noise",
    addresses=frozenset({"label-noise", "safety"}),
    needs=frozenset({"swap"}),
    batch_coupled=True,
    relabels=True,
    aggregates=True,
    around=frozenset({"pairs", "responses", "lists"}),
    expected_failures={"gradcheck": "flips, shares and the limit are constants of the step, as in the authors' code"},
    verified=(
        Verified(against="the authors' liujilong0116/CompassDPO@8bcc02b", test="test_winsor_equals_the_authors"),
        Verified(against="golden values", test="test_winsor_equals_golden_values"),
        Verified(against="its limit of no budget: the mean", test="test_winsor_without_a_budget_is_the_mean"),
    ),
)
