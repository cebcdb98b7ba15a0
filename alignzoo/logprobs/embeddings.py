"""Gradients of log-probs by the input embeddings, which can be differentiated again by the weights.

In the padded path every response has a row of its own, so one gradient of the sum of all log-probs holds each
response's. It takes what has a second derivative: attention in plain operations, and logits rather than the fused head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def embedded(inner: Any) -> Iterator[list[torch.Tensor]]:
    """Inside, gradients are recorded, attention can be differentiated twice, and the list gets what the model's input
    embeddings give."""
    seen: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, given: torch.Tensor) -> torch.Tensor:
        if not given.requires_grad:  # they are frozen
            given = given.detach().requires_grad_(True)
        seen.append(given)
        return given

    handle = inner.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad(), sdpa_kernel([SDPBackend.MATH]):
            yield seen
    finally:
        handle.remove()


def norms(logps: torch.Tensor, given: torch.Tensor, *, again: bool) -> torch.Tensor:
    """``(R,)``: the squared norm of each log-prob's gradient by its own row of embeddings ``(R, L, H)``.

    Args:
        again: whether the result can be differentiated.
    """
    (gradient,) = torch.autograd.grad(logps.sum(), given, create_graph=again, retain_graph=again)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum((1, 2))
