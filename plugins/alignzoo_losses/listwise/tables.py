"""What the listwise losses share: the numbers of a step's lists as tables, one row per prompt, best response first."""

from __future__ import annotations

from alignzoo.contract.responses import ResponseBatch
from alignzoo.lazy import torch
from alignzoo.plugin import Paper

DPO_PAPER = Paper(
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    arxiv="2305.18290",
    authors=(
        "Rafailov, Rafael",
        "Sharma, Archit",
        "Mitchell, Eric",
        "Ermon, Stefano",
        "Manning, Christopher D.",
        "Finn, Chelsea",
    ),
    venue="NeurIPS 2023",
)


def averages(responses: ResponseBatch) -> torch.Tensor:
    """``(R,)``: log-probs divided by the lengths if they are sums; unchanged under another aggregation."""
    return responses.logps if responses.aggregation is not None else responses.logps / responses.lengths


def sums(responses: ResponseBatch) -> torch.Tensor:
    """``(R,)``: log-probs times the lengths if they are averages; unchanged under another aggregation."""
    return responses.logps * responses.lengths if responses.aggregation == "mean" else responses.logps


def better_than(real: torch.Tensor) -> torch.Tensor:
    """``(P, K, K)`` bool of the mask ``(P, K)`` of lists: whether responses i and j exist and i is the better one."""
    return (real[:, :, None] & real[:, None, :]).triu(1)


def scores(responses: ResponseBatch) -> torch.Tensor:
    """``(R,)``: the data's scores.

    Raises:
        ValueError: there are none.
    """
    if responses.scores is None:
        raise ValueError("no scores: the method's card must declare needs={'scores'}")
    return responses.scores
