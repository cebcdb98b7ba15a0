"""Preference Ranking Optimization: a ranking likelihood with temperatures from reward gaps, and imitation of the best.

    ℓ = Σ_{t<k} [ log( exp(m_t·T_t) + Σ_{j>t} exp(m_j·(r_t − r_j)) ) − m_t·T_t ] − w·(k − 1)²·log π(y_1|x)
    m = log π(y|x)/|y|,     T_t = max over j > t of (r_t − r_j)

Song et al., *Preference Ranking Optimization for Human Alignment*, arXiv 2306.17492, and the authors' code. Responses
are best first; r are the data's scores; m is in nats per token, log π(y_1|x) a sum in nats. w is 0.05 in the authors'
training script (their command line has a default of 2). There is no reference. With ``temperatures: equal`` every
difference of rewards is 1, as in the paper before its section on rewards: a Plackett–Luce likelihood of averages.

|r_t − r_j| is used for r_t − r_j, which is the same where the scores have the order of the responses, and is defined
under the opposite order. Log-probs that the run aggregates otherwise (``--aggregation``) are never divided again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.contract.needs import Need
from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.listwise.tables import averages, better_than, scores, sums


class PROOptions(Options):
    """Temperatures, and the weight of imitation."""

    temperatures: Literal["scores", "equal"] = Field(
        "scores", description="temperatures from the data's score gaps, or all equal to 1"
    )
    sft_weight: float = Field(0.05, ge=0, description="w: weight of imitating the best response, times (k − 1)²")

    def needs(self) -> frozenset[Need]:
        return frozenset({"scores"}) if self.temperatures == "scores" else frozenset()


class PRO(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are the average log-probs of their tokens."""

    options: PROOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        places, real = responses.lists()
        m, worse = averages(responses)[places], better_than(real)
        gaps = torch.where(worse, self._gaps(responses, places), 0.0)
        own = m * gaps.amax(-1)  # m_t·T_t, 0 of the last response
        others = (m[:, None, :] * gaps).masked_fill(~worse, -torch.inf)
        total = torch.cat([own[:, :, None], others], -1).logsumexp(-1)
        ranking = torch.where(worse.any(-1), total - own, 0.0).sum(-1)
        size = real.sum(-1).to(m.dtype)
        return ranking - self.options.sft_weight * (size - 1) ** 2 * sums(responses)[places[:, 0]]

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return averages(responses.of_role(POLICY))

    def _gaps(self, responses: ResponseBatch, places: torch.Tensor) -> torch.Tensor:
        """``(P, K, K)``: |r_t − r_j|."""
        if self.options.temperatures == "equal":
            return responses.logps.new_ones(*places.shape, places.shape[1])
        r = scores(responses)[places].to(responses.logps.dtype)
        return (r[:, :, None] - r[:, None, :]).abs()


CARD = Card(
    kind="loss",
    name="pro",
    target=f"{__name__}:PRO",
    options=PROOptions,
    summary="PRO: ranking likelihood with reward-gap temperatures, and imitation",
    family="listwise losses",
    formula="Σ_{t<k} [log(e^{m_t·T_t} + Σ_{j>t} e^{m_j·(r_t − r_j)}) − m_t·T_t] − w(k − 1)²·log π_1, m = log π/|y|",
    paper=Paper(
        title="Preference Ranking Optimization for Human Alignment",
        arxiv="2306.17492",
        authors=("Song, Feifan", "others"),
        venue="AAAI 2024",
    ),
    aggregation="mean",
    reads="lists",
    verified=(
        Verified(against="golden values", test="test_listwise_losses_equal_golden_values"),
        Verified(against="pl-dpo, with equal temperatures", test="test_pro_with_equal_temperatures_is_plackett_luce"),
    ),
)
