"""Identity Preference Optimization.

    ℓ = ( h − 1/(2τ) )²,     h = (log π_w − log π_ref,w) − (log π_l − log π_ref,l)

Azar et al., *A General Theoretical Paradigm to Understand Learning from Human Preferences*, arXiv 2310.12036, eq. 17.
Two conventions exist and need different τ, so the choice is an explicit option and part of the plan:
``average`` divides each log-ratio by its response's length in tokens (TRL and HALOs, which report the authors'
confirmation; the default here), ``sum`` does not (literally the paper, and the DPO authors' code). Log-probs that the
run already aggregates (``--aggregation``) are never divided again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class IPOOptions(Options):
    """τ, in the inverse unit of the log-ratios set by ``logps``: nats per token, or nats."""

    tau: float = Field(0.1, gt=0, description="regularisation strength: the target margin is 1/(2·tau)")
    logps: Literal["average", "sum"] = Field(
        "average", description="average or sum log-ratios over the response's tokens"
    )

    def under(self) -> frozenset[str]:
        return frozenset({"sum"} if self.logps == "sum" else ())  # elsewhere it would equal average


class IPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are τ times the (average or summed) log-ratios."""

    options: IPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self._log_ratios(pairs)
        return (chosen - rejected - 1 / (2 * self.options.tau)) ** 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = self._log_ratios(pairs)
        return self.options.tau * chosen, self.options.tau * rejected

    def _log_ratios(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.log_ratios() if self.options.logps == "sum" else pairs.log_ratios_per_token()


CARD = Card(
    kind="loss",
    name="ipo",
    target=f"{__name__}:IPO",
    options=IPOOptions,
    summary="IPO: squared loss towards a finite target margin",
    family="squared losses",
    formula="(h − 1/(2τ))², h the difference of (average or summed) log-ratios",
    paper=Paper(
        title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
        arxiv="2310.12036",
        authors=(
            "Azar, Mohammad Gheshlaghi",
            "Rowland, Mark",
            "Piot, Bilal",
            "Guo, Daniel",
            "Calandriello, Daniele",
            "Valko, Michal",
            "Munos, Rémi",
        ),
        venue="AISTATS 2024",
    ),
    needs=frozenset({"reference"}),
    addresses=frozenset({"overoptimisation"}),
    verified=(
        Verified(
            against="the DPO authors' eric-mitchell/direct-preference-optimization@f8b8c0f, logps sum",
            test="test_losses_equal_the_authors",
        ),
        Verified(against="TRL 1.16", test="test_losses_equal_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
