"""Chooses how a run computes log-probs: packed if that reproduces the padded numbers, else padded.

Packing requires that only attention mixes positions and that these come from ``position_ids``. This is verified, not
assumed: once per run, before the first step, every token's log-prob in a few rows is compared, packed against padded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch, batches_of
from alignzoo.data.lengths import Lengths, lengths_of
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.distributed.sharding import is_shard, resharding
from alignzoo.errors import ModelError
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import CannotPack
from alignzoo.logprobs.logps import Forward, forward_parameters, innermost, packed_logps, padded_logps
from alignzoo.logprobs.trial import try_embeddings
from alignzoo.plan.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from datasets import Dataset

    from alignzoo.data.shapes import Shape

TOLERANCE = 1e-4
"""Largest difference of a token's log-prob, in nats per nat (or per nat of 1), that counts as rounding in fp32."""
TOLERANCE_NARROW = 0.05
"""The same if some layers compute in 16 bits."""


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
        policy: unwrapped, on its device; if it is sharded, all ranks call this alike. Gets packed attention if that is
            chosen; without a pack, this behaves as before.
        sample: rows to compare on, see :func:`worth_trying`.
        packing: whether packing is allowed.
        tokens: whether per-token fields are needed.
        embeddings: whether gradients by the input embeddings are needed.
        autocast: the run's compute dtype, if it is not the weights'.
    """
    padded = partial(padded_logps, tokens=tokens)
    _tried(policy, sample.row(0, most=8), padded_logps)  # checks the head here and not during a step
    reason = _why_padded(policy, sample, packing, embeddings, autocast)
    if reason is not None:
        return Choice(padded, False, f"packing is off{reason}")
    expected = torch.cat([_tried(policy, sample.row(i), padded_logps) for i in range(sample.rows)])
    failures = []
    on_a_gpu = sample.input_ids.is_cuda
    narrow = any(weight.element_size() < 4 for weight in policy.parameters())  # layers in 4 bits compute in bf16
    tolerance = TOLERANCE_NARROW if narrow else TOLERANCE
    for way in ("flex", "segments", "masks"):
        with _attention(innermost(policy), way) as attempt:
            if not attempt.possible or (way == "flex" and not on_a_gpu):
                continue
            forward = partial(packed_logps, way=way)
            try:
                gap = _gap(_tried(policy, sample, forward), expected)
                if on_a_gpu:
                    _try_backward(policy, forward, sample, autocast)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"out of memory on the few rows used to test packing ({sample.tokens} tokens)",
                    hint="lower --max-length, or see the suggestions of `alignzoo plan`",
                ) from error
            except (CannotPack, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                failures.append(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
                continue
            if gap > tolerance:
                failures.append(f"packed log-probs differ by up to {gap:.1e}")
                continue
            attempt.keep = True
            how = {"flex": ", with FlexAttention", "segments": "", "masks": ", with one mask over all rows"}[way]
            why = f"packing: each prompt once, no padding{how} (max difference from padded log-probs: {gap:.0e})"
            return Choice(partial(forward, tokens=tokens), True, why, way)
    return Choice(
        padded, False, f"packing is off: {failures[-1] if failures else 'its attention does not accept masks'}"
    )


def _why_padded(
    policy: Any, sample: TokenBatch, packing: bool, embeddings: bool, autocast: torch.dtype | None
) -> str | None:
    """Why packing is not even tried, or None."""
    if embeddings:
        try_embeddings(policy, sample.row(0, most=8), autocast)
        return ": a method of this run reads gradients by the input embeddings, so each response has its own row"
    if not packing:
        return " (--no-packing): padded batches, each response with its own prompt"
    reason = why_not_packed(innermost(policy))
    return None if reason is None else f": {reason}"


_BY_ROW = ("attn_temperature_tuning", "index_topk")
_REACHES = re.compile("window|chunk|block|local|stride|sparse|topk")
"""Words in config names that indicate layers with distance-dependent behaviour."""


def why_not_packed(model: Any) -> str | None:
    """Why a model cannot be packed, or None."""
    if getattr(model, "_is_stateful", False):
        return "the model is recurrent: its layers mix positions in the order of the row"
    if _has_alibi(model):
        return "the model measures positions within the row (ALiBi)"
    if hasattr(model.config, "vision_config"):
        return "the model accepts images"
    for name in _BY_ROW:
        if getattr(model.config.get_text_config(), name, None):
            return f"the model's {name} depends on a token's position in the row"
    if "position_ids" not in forward_parameters(model.__class__):
        return "the model does not accept position_ids"
    return None


def _has_alibi(model: Any) -> bool:
    """Whether a model biases attention by the distance within the row: a setting says so, be it one of a group of
    settings, or where none does, its trunk builds such biases."""
    config = model.config.get_text_config()
    groups = [config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))]
    said = [group.alibi for group in groups if hasattr(group, "alibi")]
    if said:
        return any(said)
    return any("alibi" in name for name in dir(type(getattr(model, model.base_model_prefix, model))))


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


@torch.no_grad()
def _tried(policy: torch.nn.Module, sample: TokenBatch, forward: Callable[..., ResponseBatch]) -> torch.Tensor:
    """``(K,)`` log-probs of every response token, response after response; without dropout."""
    training = policy.training
    policy.eval()
    try:
        responses = resharding(forward)(policy, sample, tokens=True)
    finally:
        policy.train(training)
    assert responses.token_logps is not None
    assert responses.token_mask is not None
    return responses.token_logps[responses.token_mask.bool()]


def _try_backward(policy: torch.nn.Module, forward: Forward, sample: TokenBatch, autocast: torch.dtype | None) -> None:
    """A backward pass in the run's dtype: kernels that a GPU compiles can lack one. No gradient is left."""
    with torch.enable_grad(), torch.autocast("cuda", autocast, enabled=autocast is not None):
        logps = forward(policy, sample).logps
    if is_shard(policy):  # whose gradients are in .grad only
        logps.sum().backward()
        policy.zero_grad(set_to_none=True)
        return
    asking = [weight for weight in policy.parameters() if weight.requires_grad]
    least = min(asking[:20], key=lambda weight: weight.numel())  # a small one of the first layer: all layers above it
    torch.autograd.grad(logps.sum(), least, allow_unused=True)


def _gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative for log-probs beyond 1 nat; infinite if only one side is finite."""
    gap = (found - expected).abs() / expected.abs().clamp(min=1.0)
    return float(torch.nan_to_num(gap, nan=torch.inf).max()) if not torch.equal(found, expected) else 0.0


def worth_trying(policy: Any, lengths: Lengths, first: Sequence[int]) -> list[int]:
    """Rows to try packing on: the shortest and the longest of the first step, and the one with the most responses where
    both have fewer; and those that are longest of all where the model has layers that may treat what is far apart in
    another way.

    Args:
        lengths: of all rows.
        first: rows of the first step.
    """
    by_length = sorted(first, key=lambda row: int(lengths.longest[row]))
    rows = [by_length[0], by_length[-1]]
    most = max(by_length, key=lambda row: int(lengths.responses[row]))
    if lengths.responses[most] > lengths.responses[rows].max():
        rows.append(most)
    if _reaches(policy) < int(lengths.packed.max()):
        rows += [int(lengths.longest.argmax()), int(lengths.packed.argmax())]
    return list(dict.fromkeys(rows))


def _reaches(policy: Any) -> float:
    """Tokens up to which a model's layers look alike at all that came before, as far as its config tells."""
    model = innermost(policy)
    if not model._can_set_attn_implementation():  # its attention is its own, and may be anything
        return 0
    values = vars(model.config.get_text_config()).items()
    found = [v for name, v in values if type(v) is int and v > 0 and _REACHES.search(name)]
    return min(found, default=math.inf)
