"""Tries the ways to compute packed log-probs: which of them are right, and on a GPU how long each takes.

A way is right if it reproduces the padded path's log-probs. All are compared in the policy's own dtype, outside
autocast, except ``varlen``, which exists in 16 bits only.

On a CPU, where a trial takes seconds, a row's first response is compared only if the row has no other. It follows its
prompt as in a row of its own, and whatever the rows before do to it, they do to the prompt, too. The other responses
show that, because they read the prompt, and from farther away; and they show whether one response sees another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.sharding import is_shard, resharding
from alignzoo.errors import ModelError
from alignzoo.logprobs import attention
from alignzoo.logprobs.attention import NARROW, CannotPack
from alignzoo.logprobs.logps import Forward, innermost, packed_logps, padded_logps

WAYS = {
    "varlen": "with variable-length FlashAttention",
    "flex": "with FlexAttention",
    "segments": "one segment after another",
    "masks": "with one mask over all rows",
}
"""The ways to compute packed log-probs, see :func:`alignzoo.logprobs.logps.packed_logps`, in words."""
TOLERANCE = 1e-4
"""Largest difference of a token's log-prob, in nats per nat (or per nat of 1), that counts as rounding in fp32."""
TOLERANCE_NARROW = 0.05
"""The same if some layers compute in 16 bits."""
LIMIT = 0.5
"""The most that counts as rounding where the padded path itself is known to round more than that in 16 bits."""
_WARM, _TIMED = 2, 3


@dataclass(frozen=True)
class Trial:
    """A way that is right: its largest difference, see :data:`TOLERANCE`, on a GPU the time of one forward and backward
    over the sample, and on a CPU its log-probs."""

    gap: float
    milliseconds: float | None = None
    responses: ResponseBatch | None = None


@dataclass(frozen=True)
class Tried:
    """The ways that are right on one rank, by name; if none is, why, as a continuation of *packing is off*."""

    right: Mapping[str, Trial] = field(default_factory=dict)
    why_padded: str | None = None


def try_packing(
    policy: Any, sample: TokenBatch, autocast: torch.dtype | None, timed: TokenBatch | None = None
) -> Tried:
    """Compare the ways with the padded path and, on a GPU, time those that are right; the policy stays as it was.

    Args:
        policy: see :func:`alignzoo.logprobs.forward.choose_forward`.
        sample: rows to compare on, one at a time in the padded path.
        autocast: the run's compute dtype, if it is not the weights'.
        timed: rows to time on; by default the sample's.

    Raises:
        ModelError: out of memory.
    """
    on_a_gpu = sample.input_ids.is_cuda
    try:
        expected = _padded(policy, sample)
        failures: list[str] = []
        right: dict[str, Trial] = {}
        for way in ("varlen", "flex", "segments") if on_a_gpu else ("segments",):
            _try(way, policy, (sample, timed or sample), autocast, expected, right, failures)
        if not right:  # a mask over all rows costs the square of their length
            _try("masks", policy, (sample, timed or sample), autocast, expected, right, failures)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"out of memory on the few rows used to test packing ({sample.tokens} tokens)",
            hint="lower --max-length, or see the suggestions of `alignzoo plan`",
        ) from error
    why = f": {failures[-1] if failures else 'its attention does not accept masks'}"
    return Tried(right, None if right else why)


def _try(
    way: str,
    policy: Any,
    samples: tuple[TokenBatch, TokenBatch],
    autocast: torch.dtype | None,
    expected: torch.Tensor,
    right: dict[str, Trial],
    failures: list[str],
) -> None:
    """Try one way on the samples to compare and to time on; it then is among those that are right, or has added the
    reason why it is not."""
    forward = partial(packed_logps, way=way)
    sample, timed = samples
    with _attention(innermost(policy), way) as possible:
        if not possible:
            return
        try:
            responses = None
            if way == "varlen":
                gap, tolerance = _in_sixteen_bits(policy, sample, forward, autocast, expected)
            else:
                responses = evaluated(policy, sample, forward)
                gap = _gap(_compared(sample, responses), expected)
                tolerance = TOLERANCE_NARROW if _is_narrow(policy) else TOLERANCE
            if gap > tolerance:
                failures.append(f"packed log-probs differ by up to {gap:.1e}")
                return
            on_a_gpu = sample.input_ids.is_cuda
            time = _time(policy, forward, timed, autocast) if on_a_gpu else None
        except torch.OutOfMemoryError:
            raise
        except (CannotPack, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            failures.append(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
            return
    right[way] = Trial(gap, time, None if on_a_gpu else responses)


def _in_sixteen_bits(
    policy: Any, sample: TokenBatch, forward: Forward, autocast: torch.dtype | None, expected: torch.Tensor
) -> tuple[float, float]:
    """The difference from the padded path in the run's dtype, and what counts as rounding: more for a model that
    rounds more.

    Raises:
        CannotPack: the run does not compute in 16 bits.
    """
    weights = next(weight.dtype for weight in policy.parameters() if weight.dim() > 1)
    if (autocast or weights) not in NARROW:
        raise CannotPack("variable-length attention is for 16 bits")
    attention.varlen_function()
    with torch.autocast(sample.input_ids.device.type, autocast, enabled=autocast is not None):
        rounded = _padded(policy, sample)
        gap = _gap(_compared(sample, evaluated(policy, sample, forward)), rounded)
    return gap, min(max(TOLERANCE_NARROW, 3 * _gap(rounded, expected)), LIMIT)


def _is_narrow(policy: Any) -> bool:
    """Whether some layers compute in 16 bits; those with weights of 4 do."""
    return any(weight.element_size() < 4 for weight in policy.parameters())


def use_packing(model: Any) -> None:
    """Give a model packed attention (``sdpa`` without a pack). For models like one that was tested."""
    attention.register()
    innermost(model).set_attn_implementation(attention.NAME)


def leave_packing(model: Any) -> None:
    """Undo :func:`use_packing`."""
    if innermost(model).config._attn_implementation == attention.NAME:
        innermost(model).set_attn_implementation("sdpa")


@contextmanager
def _attention(model: Any, way: str) -> Iterator[bool]:
    """Inside, if that is possible, the model has packed attention, or its own for a mask of the whole row."""
    before = model.config._attn_implementation
    if way == "masks":
        yield before in ("sdpa", "eager")
        return
    possible = before in ("sdpa", attention.NAME) and model._can_set_attn_implementation()
    if possible:
        use_packing(model)
    try:
        yield possible
    finally:
        if possible and before != attention.NAME:
            leave_packing(model)


def _padded(policy: Any, sample: TokenBatch) -> torch.Tensor:
    """``(K,)`` log-probs of the tokens to compare, response after response."""
    rows = (sample.row(i, without=skipped) for i, skipped in enumerate(_skipped(sample)))
    return torch.cat([_tokens(evaluated(policy, row, padded_logps)) for row in rows])


def _compared(sample: TokenBatch, responses: ResponseBatch) -> torch.Tensor:
    """The same of the sample's responses."""
    places = [
        place >= skipped for size, skipped in zip(sample.sizes, _skipped(sample), strict=True) for place in range(size)
    ]
    return _tokens(responses.rows(torch.tensor(places, device=responses.logps.device)))


def _skipped(sample: TokenBatch) -> list[int]:
    """How many responses of each row are not compared."""
    return [int(size > 1 and not sample.input_ids.is_cuda) for size in sample.sizes]


def _tokens(responses: ResponseBatch) -> torch.Tensor:
    assert responses.token_logps is not None
    assert responses.token_mask is not None
    return responses.token_logps[responses.token_mask.bool()]


@torch.no_grad()
def evaluated(policy: torch.nn.Module, sample: TokenBatch, forward: Callable[..., ResponseBatch]) -> ResponseBatch:
    """The sample's responses with the log-prob of every token; without dropout."""
    training = policy.training
    policy.eval()
    try:
        return resharding(forward)(policy, sample, tokens=True)
    finally:
        policy.train(training)


def _time(policy: torch.nn.Module, forward: Forward, sample: TokenBatch, autocast: torch.dtype | None) -> float:
    """Milliseconds of one forward and backward in the run's dtype; no gradient is left.

    The backward pass is a test, too: kernels that a GPU compiles can lack one.
    """
    asking = [weight for weight in policy.parameters() if weight.requires_grad]
    least = min(asking[:20], key=lambda weight: weight.numel())  # a small one of the first layer: all layers above it

    def step() -> None:
        with torch.enable_grad(), torch.autocast("cuda", autocast, enabled=autocast is not None):
            logps = forward(policy, sample).logps
        if is_shard(policy):  # whose gradients are in .grad only
            logps.sum().backward()
            policy.zero_grad(set_to_none=True)
        else:
            torch.autograd.grad(logps.sum(), least, allow_unused=True)

    for _ in range(_WARM):
        step()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(_TIMED):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / _TIMED


def _gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative for log-probs beyond 1 nat; infinite if only one side is finite."""
    gap = (found - expected).abs() / expected.abs().clamp(min=1.0)
    return float(torch.nan_to_num(gap, nan=torch.inf).max()) if not torch.equal(found, expected) else 0.0
