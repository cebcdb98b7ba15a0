"""What TPO's two forms share: the gold, the chosen and the rejected response of a ranked list."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignzoo.contract.responses import ResponseBatch
from alignzoo.lazy import torch
from alignzoo.plugin import Options, Paper
from alignzoo_losses.listwise.tables import averages, sums

PAPER = Paper(
    title="Triple Preference Optimization: Achieving Better Alignment using a Single Step Optimization",
    arxiv="2405.16681",
    authors=("Saeidi, Amir", "others"),
)


class ImitationOptions(Options):
    """The likelihood term of the gold response."""

    alpha: float = Field(1.0, ge=0, description="weight of the gold response's negative log-likelihood")
    nll: Literal["tokens", "average", "sum"] = Field(
        "tokens",
        description="its mean over all gold tokens of the step, or its average or sum over the tokens of a response",
    )

    def couples(self) -> bool:
        return self.nll == "tokens"  # the step's number of gold tokens


def triples(responses: ResponseBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices ``(P,)`` each of the gold, the chosen and the rejected responses: the best, second and last of a list; of
    two responses, the better one is both gold and chosen."""
    places, real = responses.lists()
    sizes = real.sum(-1, keepdim=True)
    if places.shape[1] == 2:
        return places[:, 0], places[:, 0], places[:, 1]
    second, last = (sizes > 2).long(), sizes - 1
    return places[:, 0], places.gather(1, second)[:, 0], places.gather(1, last)[:, 0]


def imitation(responses: ResponseBatch, gold: torch.Tensor, options: ImitationOptions) -> torch.Tensor:
    """``(P,)``: α times the negative log-likelihood of the gold responses."""
    if options.nll == "average":
        return -options.alpha * averages(responses)[gold]
    total = -options.alpha * sums(responses)[gold]
    return total if options.nll == "sum" else total / responses.lengths[gold].to(total.dtype).mean()
