"""What the losses of single responses share."""

from __future__ import annotations

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.lazy import torch


def signed(responses: ResponseBatch, values: torch.Tensor) -> torch.Tensor:
    """``(N,)``: the values of desirable responses, and those of undesirable ones with the opposite sign.

    Raises:
        ValueError: there is no label.
    """
    labels = responses.of_role(POLICY).labels
    if labels is None:
        raise ValueError("no labels: the method's card must declare needs={'labels'}")
    return labels * values
