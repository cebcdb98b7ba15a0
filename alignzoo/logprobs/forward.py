"""Chooses how a run computes log-probs: packed if that reproduces the padded numbers, else padded.

Packing requires that only attention mixes positions and that these come from ``position_ids``. This is verified, not
assumed: once per run, before the first step, every token's log-prob in a few rows is compared, packed against padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.data.lengths import lengths_of
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.errors import ModelError
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import CannotPack
from alignzoo.logprobs.logps import Forward, innermost, packed_logps, padded_logps
from alignzoo.logprobs.packable import why_not_packed, worth_trying
from alignzoo.logprobs.trial import (
    TOLERANCE,
    TOLERANCE_NARROW,
    first_line,
    gap_between,
    token_logps,
    try_backward,
    try_embeddings,
)
from alignzoo.plan.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from datasets import Dataset

    from alignzoo.data.shapes import Shape


@dataclass(frozen=True)
class Choice:
    """A forward function, with a one-line reason for choosing it."""

    forward: Forward
    packed: bool
    why: str
    way: str = "padded"  # or how it is packed: segments, flex, masks

    @property
    def by_segment(self) -> bool:
        """Whether the model now uses packed attention."""
        return self.way in ("segments", "flex")

    def adopt(self, model: Any) -> None:
        """Prepare another model with the same architecture for :attr:`forward`."""
        if self.by_segment:
            use_packing(model)


def forward_of(
    plan: Plan,
    policy: Any,
    dataset: Dataset,
    first: Sequence[int],
    pad_id: int,
    accelerator: Accelerator,
    *,
    shape: Shape,
    partners: np.ndarray | None = None,
) -> Choice:
    """The forward of a run, the same on all ranks.

    Args:
        policy: see :func:`choose_forward`.
        first: rows of the first step.
        shape, partners: of ``dataset``, see :func:`alignzoo.data.collate.batches_of`.
    """
    rows = worth_trying(policy, lengths_of(dataset, partners), first)
    batches = batches_of(dataset, rows, len(rows), pad_id, shape=shape, partners=partners)
    sample = next(batches).to(accelerator.device)
    settings, tokens, embeddings = plan.settings, "token-logps" in plan.needs, "embedding-gradients" in plan.needs
    autocast = torch.bfloat16 if settings.precision == "bf16" else None
    choice = choose_forward(
        policy, sample, packing=settings.packing, tokens=tokens, embeddings=embeddings, autocast=autocast
    )
    ranks = on_all_ranks(accelerator, lambda: (choice.packed, choice.way, choice.why))
    if len({way for _, way, _ in ranks}) == 1:
        return choice
    leave_packing(policy)
    reasons = [why for packed, _, why in ranks if not packed] or [
        "packing is off: the ranks chose different ways to pack"
    ]
    return Choice(partial(padded_logps, tokens=tokens), False, reasons[0])


def choose_forward(
    policy: Any,
    sample: TokenBatch,
    *,
    packing: bool = True,
    tokens: bool = False,
    embeddings: bool = False,
    autocast: torch.dtype | None = None,
) -> Choice:
    """The fastest forward that reproduces the padded path's log-probs.

    Args:
        policy: unwrapped, unsharded, on its device. Gets packed attention if that is chosen; without a pack, this
            behaves as before.
        sample: rows to compare on, see :func:`alignzoo.logprobs.packable.worth_trying`.
        packing: whether packing is allowed.
        tokens: whether per-token fields are needed.
        embeddings: whether gradients by the input embeddings are needed.
        autocast: the run's compute dtype, if it is not the weights'.
    """
    padded = partial(padded_logps, tokens=tokens)
    token_logps(policy, sample.row(0, most=8), padded_logps)  # checks the head here and not during a step
    if embeddings:
        try_embeddings(policy, sample.row(0, most=8), autocast)
        return Choice(
            padded,
            False,
            "packing is off: a method of this run reads gradients by the input embeddings, for which each response "
            "takes a row of its own",
        )
    if not packing:
        return Choice(padded, False, "packing is off (--no-packing): padded batches, each response with its own prompt")
    if (reason := why_not_packed(innermost(policy))) is not None:
        return Choice(padded, False, f"packing is off: {reason}")
    packed, why = _packed(policy, sample, tokens, autocast)
    return packed if packed is not None else Choice(padded, False, f"packing is off: {why}")


def _packed(policy: Any, sample: TokenBatch, tokens: bool, autocast: torch.dtype | None) -> tuple[Choice | None, str]:
    """The first way to pack that reproduces the padded log-probs; if none does, why the last did not."""
    why = "its attention does not accept masks"
    expected = torch.cat([token_logps(policy, sample.row(i), padded_logps) for i in range(sample.rows)])
    narrow = any(weight.element_size() < 4 for weight in policy.parameters())  # layers in 4 bits compute in bf16
    tolerance = TOLERANCE_NARROW if narrow else TOLERANCE
    on_a_gpu = sample.input_ids.is_cuda
    for way in ("flex", "segments", "masks") if on_a_gpu else ("segments", "masks"):
        with _attention(innermost(policy), way) as attempt:
            if not attempt.possible:
                continue
            forward = partial(packed_logps, way=way)
            try:
                gap = gap_between(token_logps(policy, sample, forward), expected)
                if on_a_gpu:
                    try_backward(policy, forward, sample, autocast)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"out of memory on the few rows used to test packing ({sample.tokens} tokens)",
                    hint="lower --max-length, or see the suggestions of `alignzoo plan`",
                ) from error
            except (CannotPack, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                why = first_line(error)
                continue
            if gap > tolerance:
                why = f"packed log-probs differ by up to {gap:.1e}"
                continue
            attempt.keep = True
            how = {"flex": ", with FlexAttention", "segments": "", "masks": ", with one mask over all rows"}[way]
            packing = f"packing: each prompt once, no padding{how} (max difference from padded log-probs: {gap:.0e})"
            return Choice(partial(forward, tokens=tokens), True, packing, way), ""
    return None, why


def use_packing(model: Any) -> None:
    """Give a model packed attention (``sdpa`` without a pack). For models like one that was tested."""
    attention.register()
    innermost(model).set_attn_implementation(attention.NAME)


def leave_packing(model: Any) -> None:
    """Undo :func:`use_packing`."""
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
    if way != "masks":
        attempt.possible = before in ("sdpa", attention.NAME) and model._can_set_attn_implementation()
        if attempt.possible:
            use_packing(model)
    else:
        attempt.possible = before in ("sdpa", "eager")
    try:
        yield attempt
    finally:
        if way != "masks" and attempt.possible and not attempt.keep:
            leave_packing(model)
