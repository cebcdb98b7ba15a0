"""Batches of responses with given numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from golden import golden_pairs

from alignzoo.contract.responses import KL, ResponseBatch


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def with_kl(responses: ResponseBatch, log_ratios: Sequence[float]) -> ResponseBatch:
    """The responses with KL responses of these log-ratios behind them, all to the last prompt."""
    ratios, count = column(*log_ratios), len(log_ratios)
    mismatched = ResponseBatch(
        logps=ratios - 7,
        lengths=torch.full_like(ratios, 5),
        prompt=torch.full((count,), int(responses.prompt[-1])),
        ref_logps=torch.full_like(ratios, -7),
        labels=torch.zeros(count, dtype=torch.long),
        ranks=torch.full((count,), -1),
        roles=torch.full((count,), KL),
    )
    roles = torch.zeros(len(responses), dtype=torch.long)
    own = replace(responses, roles=roles, paired=False)
    joined = ResponseBatch.cat([own, mismatched])
    return replace(joined, prompt=torch.cat([own.prompt, mismatched.prompt]))


def unpaired(side: str, label: int) -> ResponseBatch:
    """One side of the golden pairs, each a prompt of its own with this label."""
    pairs = golden_pairs()
    return ResponseBatch(
        logps=getattr(pairs, f"{side}_logps"),
        lengths=getattr(pairs, f"{side}_lengths"),
        prompt=torch.arange(4),
        ref_logps=getattr(pairs, f"ref_{side}_logps"),
        labels=torch.full((4,), label),
        ranks=torch.full((4,), -1),
    )


def ranked(scores: Sequence[Sequence[float]], beta: float) -> ResponseBatch:
    """Lists whose responses, best first, have these scores β·(log π − log π_ref)."""
    flat = column(*itertools.chain.from_iterable(scores))
    sizes = torch.tensor([len(of_prompt) for of_prompt in scores])
    return ResponseBatch(
        logps=flat / beta - 3,
        lengths=torch.full_like(flat, 4),
        prompt=torch.repeat_interleave(torch.arange(len(scores)), sizes),
        ref_logps=torch.full_like(flat, -3),
        labels=torch.zeros(len(flat), dtype=torch.long),
        ranks=torch.cat([torch.arange(int(size)) for size in sizes]),
    )
