"""Odds Ratio Preference Optimization: the likelihood of the chosen response plus a log odds ratio.

    ℓ = −m_w − λ·log σ( log [ odds(m_w)/odds(m_l) ] ),     m = log π(y|x)/|y|,     odds(m) = e^m/(1 − e^m)

Hong, Lee, Thorne, *ORPO: Monolithic Preference Optimization without Reference Model*, arXiv 2403.07691, eq. 6; λ is
``beta`` in TRL. m is the average log-prob of the response's tokens, also in the likelihood term; the authors' code
averages that over all tokens of a batch (TRL also over the prompt's), here each pair has its own average, so values do
not depend on one another. log(1 − e^m) is evaluated on two branches that meet at −log 2, for m up to −10⁻⁶: at 0 the
odds are infinite. There is no opposite label: the likelihood of the other response is not meant to rise.
"""

from __future__ import annotations

import math

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified

LARGEST = -1e-6
"""Nats per token; a response is not taken to be more likely than that."""


class ORPOOptions(Options):
    """λ."""

    odds_weight: float = Field(0.1, gt=0, description="weight of the odds ratio")


class ORPO(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are λ times the average log-prob of a response's tokens."""

    options: ORPOOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.per_token()
        ratio = _log_odds(chosen) - _log_odds(rejected)
        return -chosen - self.options.odds_weight * F.logsigmoid(ratio)

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, rejected = pairs.per_token()
        return self.options.odds_weight * chosen, self.options.odds_weight * rejected


def _log_odds(m: torch.Tensor) -> torch.Tensor:
    """m − log(1 − e^m). Both branches see only values at which they and their gradients are finite."""
    m = m.clamp(max=LARGEST)
    near = torch.log(-torch.expm1(m.clamp(min=-math.log(2))))
    far = torch.log1p(-torch.exp(m.clamp(max=-math.log(2))))
    return m - torch.where(m > -math.log(2), near, far)


CARD = Card(
    kind="loss",
    name="orpo",
    target=f"{__name__}:ORPO",
    options=ORPOOptions,
    summary="ORPO: likelihood of the chosen response plus a log odds ratio",
    family="reference-free losses",
    formula="−m_w − λ·log σ(log odds(m_w) − log odds(m_l)), m = log π/|y|",
    paper=Paper(
        title="ORPO: Monolithic Preference Optimization without Reference Model",
        arxiv="2403.07691",
        authors=("Hong, Jiwoo", "Lee, Noah", "Thorne, James"),
        venue="EMNLP 2024",
    ),
    aggregation="mean",
    swaps=False,
    verified=(
        Verified(against="TRL 1.16, its odds ratio term", test="test_orpo_equals_trl"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
