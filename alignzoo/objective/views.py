"""Views of a step's responses: completed with constants, in float64, relative to an anchor, or a subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch

_LOGPS = ("logps", "token_logps")


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
    responses: ResponseBatch,
    batch: TokenBatch,
    reference: ResponseBatch | None,
    groups: Mapping[str, int],
    *,
    safe: bool = False,
    progress: float = 0.0,
) -> ResponseBatch:
    """Policy fields completed with those that do not depend on the policy: what the reference says, scores, groups, and
    log-probs of tokens under guide models.

    Args:
        safe: whether the data's safety labels are read.
        progress: the share of the run's optimizer steps taken before this one.
    """
    constants: dict[str, Any] = {
        "scores": batch.scores,
        "guide_tokens": batch.guide_tokens,
        "contrast_tokens": batch.contrast_tokens,
        "progress": progress,
    }
    if safe:
        constants["safe"] = batch.safe
    if groups and batch.groups is not None:
        of_rows = torch.tensor([groups[name] for name in batch.groups], device=responses.logps.device)
        constants["groups"] = of_rows[responses.prompt]
    if reference is not None:
        constants |= {"ref_logps": reference.logps, "ref_token_logps": reference.token_logps}
        constants |= {"ref_entropies": reference.ref_entropies}
    return replace(responses, **constants)


def in_float64(responses: ResponseBatch) -> ResponseBatch:
    """In float64 (fp32 if the device lacks it), so that the objective's arithmetic adds no significant error."""
    return responses.to(dtype=torch.float32 if responses.logps.device.type == "mps" else torch.float64)


def relative_to(responses: ResponseBatch, anchor: ResponseBatch) -> ResponseBatch:
    """The policy's log-probs minus the anchor's, which are constants; the anchor replaces the reference, which is 0.

    All else stays as it is: KL and norms are no log-probs, and the reference's entropies weigh responses."""
    present = responses.present()
    policy: dict[str, Any] = {
        name: present[name] - getattr(anchor, name).detach() for name in _LOGPS if name in present
    }
    reference: dict[str, Any] = {
        f"ref_{name}": torch.zeros_like(present[f"ref_{name}"]) for name in _LOGPS if f"ref_{name}" in present
    }
    return replace(responses, **policy, **reference)


def spread(some: ResponseBatch, kept: torch.Tensor) -> ResponseBatch:
    """A batch of all responses with ``some`` where ``kept`` ``(R,)`` is True, and 0 elsewhere."""

    def placed(value: torch.Tensor) -> torch.Tensor:
        every = value.new_zeros((len(kept), *value.shape[1:]))
        every[kept] = value
        return every

    return some.map(placed)
