"""From a tokenised batch to the log-probs of its pairs: the one place where the model enters the objective.

The padded, concatenated path: chosen and rejected rows in one forward. Everything after the model's logits is fp32
whatever the compute dtype (a bf16 sum near 300 has spacing 2). The loop knows only :data:`PairForward`, so another
way to the same numbers (packing, chunked heads) takes this one's place without touching anything else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.data.collate import TokenBatch
from alignzoo.model.base import without_adapter
from alignzoo.pairs import PairBatch

PairForward = Callable[[torch.nn.Module, TokenBatch], PairBatch]
"""Policy fields of a batch's pairs under a model; reference fields stay None."""


def padded_pair_logps(model: torch.nn.Module, batch: TokenBatch, *, tokens: bool = False) -> PairBatch:
    """Summed log-probs (nats) and lengths of B pairs from one forward over 2B padded rows.

    Args:
        model: a causal LM called with ``input_ids`` and ``attention_mask``, possibly wrapped (DDP, FSDP, PEFT).
        batch: ``(2B, L)`` tokens, chosen rows first; padding on either side.
        tokens: also fill the ``(B, T)`` per-token fields.

    Raises:
        ValueError: a row has no response token (it would train on 0/0).
    """
    kept = batch.response_mask[:, 1:]
    lengths = kept.sum(-1)
    if not bool((lengths > 0).all()):
        row = int((lengths == 0).nonzero()[0, 0])
        side = "chosen" if row < batch.pairs else "rejected"
        raise ValueError(f"pair {int(batch.pair_ids[row % batch.pairs])}: the {side} response has no token")
    logits, targets, kept = _response_logits(model, batch, kept)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # fp64 models stay fp64
    token_logps = -F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    token_logps = token_logps.view(targets.shape).masked_fill(~kept, 0.0)
    dtype = token_logps.dtype
    summed, lengths = token_logps.sum(-1), lengths.to(dtype)
    pairs = batch.pairs
    fields = {
        "chosen_logps": summed[:pairs],
        "rejected_logps": summed[pairs:],
        "chosen_lengths": lengths[:pairs],
        "rejected_lengths": lengths[pairs:],
    }
    if tokens:
        rows, mask = _left_align(token_logps, kept)
        fields |= {
            "chosen_token_logps": rows[:pairs],
            "rejected_token_logps": rows[pairs:],
            "chosen_token_mask": mask[:pairs],
            "rejected_token_mask": mask[pairs:],
        }
    return PairBatch(**fields)


def _response_logits(
    model: torch.nn.Module, batch: TokenBatch, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits ``(2B, K, V)`` that predict the tokens from the first response token of any row on, those tokens
    ``(2B, K)``, and which of them count. The head is not run on the positions before where the model allows it."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    accepted = _forward_parameters(_innermost(model).__class__)
    if "position_ids" in accepted:
        inputs["position_ids"] = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    first = int(kept.any(0).nonzero()[0, 0])
    count = kept.shape[1] - first
    if "logits_to_keep" in accepted:
        logits = model(**inputs, logits_to_keep=count + 1, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, first:]
    return logits[:, :-1], batch.input_ids[:, 1 + first :], kept[:, first:]


def _left_align(values: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(N, K)`` values at kept positions moved to the front of each row: ``(N, T)`` values and their mask."""
    width = int(kept.sum(-1).max())
    order = torch.argsort(~kept, dim=-1, stable=True)[:, :width]
    return values.gather(-1, order), kept.gather(-1, order).to(values.dtype)


def _innermost(model: Any) -> Any:
    """The transformers model inside DDP and PEFT wrappers."""
    return without_adapter(getattr(model, "module", model))


@lru_cache
def _forward_parameters(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)
