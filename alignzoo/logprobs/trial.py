"""Passes over a few rows before a run's first step, to see what a model allows and computes. No gradient is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import ModelError
from alignzoo.logprobs.logps import Forward, padded_logps
from alignzoo.logprobs.statistics import Ask

TOLERANCE = 1e-4
"""Largest difference of a token's log-prob, in nats per nat (or per nat of 1), that counts as rounding in fp32."""
TOLERANCE_NARROW = 0.05
"""The same if some layers compute in 16 bits."""


@torch.no_grad()
def token_logps(policy: torch.nn.Module, sample: TokenBatch, forward: Callable[..., ResponseBatch]) -> torch.Tensor:
    """``(K,)`` log-probs of every response token, response after response; without dropout."""
    training = policy.training
    policy.eval()
    try:
        responses = forward(policy, sample, tokens=True)
    finally:
        policy.train(training)
    assert responses.token_logps is not None
    assert responses.token_mask is not None
    return responses.token_logps[responses.token_mask.bool()]


def try_backward(policy: torch.nn.Module, forward: Forward, sample: TokenBatch, autocast: torch.dtype | None) -> None:
    """A backward pass in the run's dtype: kernels that a GPU compiles can lack one. No gradient is left."""
    with torch.enable_grad(), torch.autocast("cuda", autocast, enabled=autocast is not None):
        logps = forward(policy, sample).logps
    torch.autograd.grad(logps.sum(), _small_weight(policy), allow_unused=True)


def _small_weight(policy: torch.nn.Module) -> torch.nn.Parameter:
    """A small trainable weight of the first layer: a gradient by it passes all layers above."""
    asking = [weight for weight in policy.parameters() if weight.requires_grad]
    return min(asking[:20], key=lambda weight: weight.numel())


def try_embeddings(policy: Any, sample: TokenBatch, autocast: torch.dtype | None) -> None:
    """Gradients by the input embeddings and, of these, by the weights; no gradient is left.

    Raises:
        ModelError: the model has none, or its layers cannot be differentiated twice.
    """
    kind, training = sample.input_ids.device.type, policy.training
    policy.eval()
    try:
        with torch.enable_grad(), torch.autocast(kind, autocast, enabled=autocast is not None):
            norms = padded_logps(policy, sample, Ask(embeddings=True)).embedding_norms
            assert norms is not None
            norms.sum().backward()  # a gradient by one weight alone would pass by layers that refuse
        reached = any(weight.grad is not None for weight in policy.parameters())
        why = None if reached else "none comes back to its weights"
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, IndexError) as error:
        why = first_line(error)
    finally:
        policy.train(training)
        policy.zero_grad(set_to_none=True)
    if why is not None:
        raise ModelError(
            f"a method of this run differentiates gradients by the input embeddings once more, which this model's "
            f"layers do not allow: {why}",
            hint="choose another method, or a model whose attention is computed by PyTorch (sdpa or eager)",
        )


def gap_between(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative for log-probs beyond 1 nat; infinite if only one side is finite."""
    gap = (found - expected).abs() / expected.abs().clamp(min=1.0)
    return float(torch.nan_to_num(gap, nan=torch.inf).max()) if not torch.equal(found, expected) else 0.0


def first_line(error: Exception) -> str:
    """An error's first line, or its type where it has no text."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
