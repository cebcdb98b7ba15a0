"""LiPO-λ: pairwise logistic losses of a ranked list, weighted by what swapping the two would change in DCG.

    ℓ = Σ_{ψ_i > ψ_j} |G_i − G_j|·|1/D_i − 1/D_j|·log( 1 + exp(s_j − s_i) )
    G = 2^ψ − 1,     D = ln(1 + rank by s, from 1),     s = β·(log π(y|x) − log π_ref(y|x))

Liu et al., *LiPO: Listwise Preference Optimization through Learning-to-Rank*, arXiv 2402.01878. Log-probs are sums over
response tokens, in nats; β is in 1/nats. No gradient flows through D. The label ψ of a response is, with ``labels``:
``win-rate``, the share of the other responses that it beats, in [0, 1] (the paper averages the win probabilities of a
ranking model; a given order is the deterministic case); ``places``, how many it beats; ``scores``, the data's scores.

The pairs are those of the given order, which the scores only weigh, so that the loss is defined under the opposite
order; pairs with equal scores drop out. Responses with equal s take the given order: at the first step all are equal
to 0, and with equal ranks there would be no gradient.

The paper's reduction over the pairs and its β are not confirmed: the formula is a sum, as here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.contract.needs import Need
from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, Paper, Verified
from alignzoo_losses.listwise.tables import better_than, scores

NEAR = 1e-6
"""Rewards closer than this count as equal: rounding moves those of a first step, all 0, as far in fp32."""


class LiPOLambdaOptions(Options):
    """β, in 1/nats, and the labels."""

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")
    labels: Literal["win-rate", "places", "scores"] = Field(
        "win-rate",
        description="ψ: share or number of the list's responses that one beats, or the data's scores",
        json_schema_extra={"search": []},
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"scores"}) if self.labels == "scores" else frozenset()


class LiPOLambda(PreferenceLoss):
    """Values ``(P,)`` of prompts; the rewards ``(R,)`` of their responses are β·(log π − log π_ref)."""

    options: LiPOLambdaOptions

    def __call__(self, responses: ResponseBatch) -> torch.Tensor:
        places, real = responses.lists()
        s = self.options.beta * responses.log_ratios()[places]
        gain = torch.exp2(self._labels(responses, places, real)) - 1
        weights = _differences(gain).abs() * _differences(1 / _discount(s.detach(), real)).abs()
        weights = torch.where(better_than(real), weights, 0.0)
        return (weights * F.softplus(-_differences(s))).sum((1, 2))

    def rewards(self, responses: ResponseBatch) -> torch.Tensor:
        return self.options.beta * responses.of_role(POLICY).log_ratios()

    def _labels(self, responses: ResponseBatch, places: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """ψ ``(P, K)``."""
        if self.options.labels == "scores":
            return scores(responses)[places].to(responses.logps.dtype)
        beaten = better_than(real).sum(-1).to(responses.logps.dtype)
        others = (real.sum(-1, keepdim=True) - 1).clamp(min=1)
        return beaten if self.options.labels == "places" else beaten / others


def _differences(of: torch.Tensor) -> torch.Tensor:
    """``(P, K, K)``: i less j."""
    return of[:, :, None] - of[:, None, :]


def _discount(s: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """D ``(P, K)``: ln(1 + rank), the response with the highest s having rank 1."""
    ahead = s[:, None, :] - s[:, :, None]  # [i, j]: of j over i
    first = (ahead > NEAR) | ((ahead.abs() <= NEAR) & torch.ones_like(ahead, dtype=torch.bool).tril(-1))
    return torch.log1p((first & real[:, None, :]).sum(-1).to(s.dtype) + 1)


CARD = Card(
    kind="loss",
    name="lipo-lambda",
    target=f"{__name__}:LiPOLambda",
    options=LiPOLambdaOptions,
    aliases=("lipo",),
    summary="LiPO-λ: logistic losses of pairs in a list, weighted by their DCG gap",
    family="listwise losses",
    formula="Σ_{ψ_i>ψ_j} |2^ψ_i − 2^ψ_j|·|1/D_i − 1/D_j|·softplus(s_j − s_i), D = ln(1 + rank by s)",
    paper=Paper(
        title="LiPO: Listwise Preference Optimization through Learning-to-Rank",
        arxiv="2402.01878",
        authors=("Liu, Tianqi", "Qin, Zhen", "Wu, Junru", "others"),
    ),
    needs=frozenset({"reference"}),
    reads="lists",
    verified=(
        Verified(against="golden values", test="test_listwise_losses_equal_golden_values"),
        Verified(against="the formula, term by term", test="test_lipo_lambda_is_its_formula"),
    ),
)
