"""Whether a model can be differentiated twice, tried before the first step."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.data.collate import TokenBatch
from alignzoo.errors import ModelError
from alignzoo.logprobs.logps import padded_logps
from alignzoo.logprobs.statistics import Ask


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
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    finally:
        policy.train(training)
        policy.zero_grad(set_to_none=True)
    if why is not None:
        raise ModelError(
            f"a method of this run differentiates gradients by the input embeddings once more, which this model's "
            f"layers do not allow: {why}",
            hint="choose another method, or a model whose attention is computed by PyTorch (sdpa or eager)",
        )
