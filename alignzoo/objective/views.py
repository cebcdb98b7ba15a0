"""Views of a step's responses: completed with constants, in float64, relative to an anchor, or a subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from alignzoo.contract.responses import DIFFERENTIABLE, ResponseBatch
from alignzoo.data.collate import TokenBatch


def count_rows(batches: Sequence[TokenBatch]) -> int:
    """Rows (prompts) in a rank's micro-batches."""
    return sum(batch.rows for batch in batches)


def structure(batch: TokenBatch) -> ResponseBatch:
    """A batch's responses before any forward pass, with placeholder log-probs."""
    return ResponseBatch(
        logps=batch.lengths,
        lengths=batch.lengths,
        prompt=batch.prompt,
        labels=batch.labels,
        ranks=batch.ranks,
        roles=batch.roles,
        paired=batch.paired,
    )


def with_constants(
    responses: ResponseBatch, batch: TokenBatch, reference: ResponseBatch | None, groups: Mapping[str, int]
) -> ResponseBatch:
    """Policy fields completed with those that do not depend on the policy: reference log-probs, scores, groups, and
    log-probs of tokens under guide models."""
    constants: dict[str, Any] = {
        "scores": batch.scores,
        "guide_tokens": batch.guide_tokens,
        "contrast_tokens": batch.contrast_tokens,
    }
    if groups and batch.groups is not None:
        of_rows = torch.tensor([groups[name] for name in batch.groups], device=responses.logps.device)
        constants["groups"] = of_rows[responses.prompt]
    if reference is not None:
        constants |= {"ref_logps": reference.logps, "ref_token_logps": reference.token_logps}
    return replace(responses, **constants)


def in_float64(responses: ResponseBatch) -> ResponseBatch:
    """In float64 (fp32 if the device lacks it), so that the objective's arithmetic adds no significant error."""
    return responses.to(dtype=torch.float32 if responses.logps.device.type == "mps" else torch.float64)


def relative_to(responses: ResponseBatch, anchor: ResponseBatch) -> ResponseBatch:
    """The policy's log-probs minus the anchor's, which are constants; the anchor replaces the reference, which is 0."""
    present = responses.present()
    policy: dict[str, Any] = {
        name: present[name] - getattr(anchor, name).detach() for name in DIFFERENTIABLE if name in present
    }
    reference: dict[str, Any] = {
        name: torch.zeros_like(value) for name, value in present.items() if name.startswith("ref_")
    }
    return replace(responses, **policy, **reference)


def spread(some: ResponseBatch, kept: torch.Tensor) -> ResponseBatch:
    """A batch of all responses with ``some`` where ``kept`` ``(R,)`` is True, and 0 elsewhere."""

    def placed(value: torch.Tensor) -> torch.Tensor:
        every = value.new_zeros((len(kept), *value.shape[1:]))
        every[kept] = value
        return every

    return some.map(placed)
