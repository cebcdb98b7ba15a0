"""What the losses of single responses share."""

from __future__ import annotations

from alignzoo.contract.responses import POLICY, ResponseBatch
from alignzoo.lazy import torch


def labels_of(responses: ResponseBatch) -> torch.Tensor:
    """``(N,)``: the labels of the policy's responses.

    Raises:
        ValueError: there are none.
    """
    labels = responses.of_role(POLICY).labels
    if labels is None:
        raise ValueError("no labels: the method's card must declare needs={'labels'}")
    return labels
