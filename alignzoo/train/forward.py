"""Which way a run computes its log-probs: packed where that gives the padded numbers, padded elsewhere.

A model is packed if nothing but attention mixes its positions and they come from ``position_ids``. That is not believed
but tried, once per run, before the first step: the log-probs of every token of a few pairs, packed against padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from alignzoo.data.collate import TokenBatch
from alignzoo.train import attention
from alignzoo.train.attention import CannotPack
from alignzoo.train.logps import PairForward, forward_parameters, innermost, packed_pair_logps, padded_pair_logps

TOLERANCE = 1e-4
"""Largest difference of a token's log-prob, in nats per nat (or per nat of 1), that counts as rounding in fp32."""


@dataclass(frozen=True)
class Choice:
    """A way to the log-probs, and in a line of text why it was taken."""

    forward: PairForward
    packed: bool
    why: str
    attention: str | None = None  # what the model's attention was set to

    def adopt(self, model: Any) -> None:
        """Make another model with the same architecture ready for :attr:`forward`."""
        if self.attention is not None:
            use_packing(model)


def choose_forward(policy: Any, sample: TokenBatch, *, packing: bool = True, tokens: bool = False) -> Choice:
    """The quickest way that gives the padded path's log-probs.

    Args:
        policy: unwrapped, whole, on its device. Its attention becomes the packed one where that is chosen; without a
            pack to work on it is what it was before.
        sample: two pairs or more to try it on; one with a sequence longer than the model's window, if the data has any.
        packing: whether packing is wanted at all.
        tokens: whether the per-token fields are.
    """
    padded = partial(padded_pair_logps, tokens=tokens)
    if not packing:
        return Choice(padded, False, "every response with its own prompt, padded (--no-packing)")
    reason = _cannot_be(innermost(policy))
    if reason is not None:
        return Choice(padded, False, f"packing is off: {reason}")
    expected = _tried(policy, partial(padded_pair_logps, tokens=True), sample)
    failures = []
    for way in ("pairs", "masks"):
        with _attention(innermost(policy), way) as attempt:
            if not attempt.possible:
                continue
            forward = partial(packed_pair_logps, masks=way == "masks")
            try:
                gap = _gap(_tried(policy, partial(forward, tokens=True), sample), expected)
            except (CannotPack, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                failures.append(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
                continue
            if gap > TOLERANCE:
                failures.append(f"its log-probs come out differently, by up to {gap:.1e}")
                continue
            attempt.keep = True
            how = "" if way == "pairs" else ", by one mask over all pairs"
            why = f"packing: each prompt once, no padding{how} (largest difference from the padded path {gap:.0e})"
            set_to = attention.NAME if way == "pairs" else None
            return Choice(partial(forward, tokens=tokens), True, why, set_to)
    return Choice(padded, False, f"packing is off: {failures[-1] if failures else 'its attention takes no masks'}")


def _cannot_be(model: Any) -> str | None:
    """Why a model need not be tried."""
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        return "the model is recurrent: its layers mix positions in the order of the row"
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return "the model measures positions within the row (ALiBi)"
    if hasattr(model.config, "vision_config"):
        return "the model takes images"
    if "position_ids" not in forward_parameters(model.__class__):
        return "the model takes no position_ids"
    return None


def use_packing(model: Any) -> None:
    """Give a model packed attention; without a pack it is ``sdpa``. For models like one that was tried."""
    attention.register()
    innermost(model).set_attn_implementation(attention.NAME)


def leave_packing(model: Any) -> None:
    """The opposite of :func:`use_packing`."""
    if innermost(model).config._attn_implementation == attention.NAME:
        innermost(model).set_attn_implementation("sdpa")


@dataclass
class _Attempt:
    possible: bool = True
    keep: bool = False


@contextmanager
def _attention(model: Any, way: str) -> Iterator[_Attempt]:
    """The model with packed attention, or with its own for a mask of the whole row; as it was before, if not kept."""
    attempt, before = _Attempt(), model.config._attn_implementation
    if way == "pairs":
        attempt.possible = before in ("sdpa", attention.NAME) and model._can_set_attn_implementation()
        if attempt.possible:
            use_packing(model)
    else:
        attempt.possible = before in ("sdpa", "eager")
    try:
        yield attempt
    finally:
        if way == "pairs" and attempt.possible and not attempt.keep:
            leave_packing(model)


@torch.no_grad()
def _tried(policy: torch.nn.Module, forward: PairForward, sample: TokenBatch) -> torch.Tensor:
    """``(2B, T)`` log-probs of every token, without dropout."""
    training = policy.training
    policy.eval()
    try:
        pairs = forward(policy, sample)
    finally:
        policy.train(training)
    both = (pairs.chosen_token_logps, pairs.rejected_token_logps)
    return torch.cat([side for side in both if side is not None])


def _gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative for log-probs beyond 1 nat; infinite where one side alone is not finite."""
    gap = (found - expected).abs() / expected.abs().clamp(min=1.0)
    return float(torch.nan_to_num(gap, nan=torch.inf).max()) if not torch.equal(found, expected) else 0.0


def worth_trying(policy: Any, longest: np.ndarray, first: Sequence[int]) -> list[int]:
    """Rows to try packing on: the shortest and the longest of the first step's pairs; where the model's layers see a
    window only, the longest of all pairs as well.

    Args:
        longest: tokens of each pair's longer sequence.
        first: rows of the first step.
    """
    by_length = sorted(first, key=lambda row: int(longest[row]))
    rows = [by_length[0], by_length[-1]]
    if getattr(innermost(policy).config.get_text_config(), "sliding_window", None) is not None:
        rows.append(int(longest.argmax()))
    return list(dict.fromkeys(rows))
