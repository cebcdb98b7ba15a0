"""The last hidden states of response tokens, kept from what the head of a forward pass is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass
class Kept:
    """What one forward pass has shown.

    Attributes:
        at: ``(K, H)`` the head's inputs at the positions that predict response tokens.
        grid: ``(R, T, H)`` the same by response and token, at least fp32, 0 elsewhere; None before the pass.
    """

    at: torch.Tensor | None = None
    grid: torch.Tensor | None = None


_KEEPING: ContextVar[Kept | None] = ContextVar("keeping", default=None)


@contextmanager
def keeping(wanted: bool = True) -> Iterator[Kept]:
    """Inside, forward passes leave their last hidden states in what is given, if ``wanted``."""
    kept = Kept()
    token = _KEEPING.set(kept if wanted else None)
    try:
        yield kept
    finally:
        _KEEPING.reset(token)


def note(inputs: torch.Tensor) -> None:
    """Take note of the head's inputs ``(1, K, H)``."""
    kept = _KEEPING.get()
    if kept is not None:
        kept.at = inputs[0].detach()


def place(rows: torch.Tensor, columns: torch.Tensor, responses: int, longest: int) -> None:
    """Lay what was noted out by response and token, given where each of its K positions belongs."""
    kept = _KEEPING.get()
    if kept is not None and kept.at is not None:
        wide = kept.at.to(torch.promote_types(kept.at.dtype, torch.float32))
        empty = wide.new_zeros(responses, longest, wide.shape[-1])
        kept.grid = empty.index_put((rows, columns), wide)
