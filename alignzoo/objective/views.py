"""A step's pairs beside the model: completed by constants, in float64, relative to an anchor, or only some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from alignzoo.contract.pairs import DIFFERENTIABLE, PairBatch
from alignzoo.data.collate import TokenBatch


def count_pairs(batches: Sequence[TokenBatch]) -> int:
    """Pairs in a rank's micro-batches."""
    return sum(batch.pairs for batch in batches)


def with_constants(
    pairs: PairBatch, batch: TokenBatch, reference: PairBatch | None, groups: Mapping[str, int]
) -> PairBatch:
    """Policy fields completed by what does not depend on the policy: reference log-probs, scores, groups."""
    constants: dict[str, Any] = {
        "chosen_scores": batch.chosen_scores,
        "rejected_scores": batch.rejected_scores,
    }
    if groups and batch.groups is not None:
        indices = [groups[name] for name in batch.groups]
        constants["groups"] = torch.tensor(indices, device=pairs.chosen_logps.device)
    if reference is not None:
        for name in ("chosen_logps", "rejected_logps", "chosen_token_logps", "rejected_token_logps"):
            constants[f"ref_{name}"] = getattr(reference, name)
    return replace(pairs, **constants)


def in_float64(pairs: PairBatch) -> PairBatch:
    """In float64 (fp32 where the device has none): the objective's own arithmetic adds no error worth speaking of."""
    return pairs.to(dtype=torch.float32 if pairs.chosen_logps.device.type == "mps" else torch.float64)


def relative_to(pairs: PairBatch, anchor: PairBatch) -> PairBatch:
    """The policy's log-probs less the anchor's, which are constants; the reference, in whose place it stands, is 0."""
    policy = {
        name: value - getattr(anchor, name).detach()
        for name, value in pairs.present().items()
        if name in DIFFERENTIABLE
    }
    reference = {name: torch.zeros_like(value) for name, value in pairs.present().items() if name.startswith("ref_")}
    return replace(pairs, **policy, **reference)


def spread(some: PairBatch, kept: torch.Tensor) -> PairBatch:
    """A batch of all pairs that has ``some`` where ``kept`` ``(N,)`` is True, and 0 elsewhere."""

    def placed(value: torch.Tensor) -> torch.Tensor:
        every = value.new_zeros((len(kept), *value.shape[1:]))
        every[kept] = value
        return every

    return some.map(placed)
