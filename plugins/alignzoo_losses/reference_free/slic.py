"""SLiC-HF: a hinge loss on log-probs, plus the likelihood of the chosen response.

    ℓ = max( 0, δ − log π(y_w|x) + log π(y_l|x) ) + λ·( −log π(y_w|x) )

Zhao et al., *SLiC-HF: Sequence Likelihood Calibration with Human Feedback*, arXiv 2305.10425. Log-probs are sums over
response tokens, in nats, as is δ. The paper takes the likelihood term on a separate target, such as the response of the
supervised model; here it is on the chosen one, as in HALOs, which adds it per token to a loss per sequence: both terms
here are of the sequence. There is no opposite label: the likelihood of the other response is not meant to rise.
"""

from __future__ import annotations

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.pairs import PairBatch
from alignzoo.plugin import Card, Options, Paper, Verified


class SLiCOptions(Options):
    """δ, in nats, and λ."""

    delta: float = Field(1.0, gt=0, description="margin in nats above which the hinge costs nothing")
    nll_weight: float = Field(0.1, ge=0, description="weight of the chosen response's negative log-likelihood")


class SLiC(PreferenceLoss):
    """Values and rewards ``(B,)``; the rewards are log-probs."""

    options: SLiCOptions

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.relu(self.options.delta - chosen + rejected) - self.options.nll_weight * chosen

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps


CARD = Card(
    kind="loss",
    name="slic",
    target=f"{__name__}:SLiC",
    options=SLiCOptions,
    summary="SLiC-HF: hinge loss on log-probs plus likelihood of the chosen",
    family="reference-free losses",
    formula="max(0, δ − log π_w + log π_l) − λ·log π_w",
    paper=Paper(
        title="SLiC-HF: Sequence Likelihood Calibration with Human Feedback",
        arxiv="2305.10425",
        authors=("Zhao, Yao", "others"),
    ),
    swaps=False,
    verified=(
        Verified(against="golden values of the calibration term", test="test_slic_is_its_calibration_and_likelihood"),
        Verified(against="golden values", test="test_losses_equal_golden_values"),
    ),
)
