"""Log-softmax, gather, entropy and the gradient by the logits in one Triton kernel; needs ``triton``.

A program has a row. It reads the row once for maximum and sums, and, where the gradient is asked for, once more, which
for a row of up to a few hundred KiB is from the GPU's cache. The gradient is written in the dtype of its products, so
of a chunk only this and the raw logits are in memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alignzoo.logprobs.softmax import PLAIN, OfLogits, Shape

BLOCK = 4096
"""Logits of a row that a program works on at a time."""


def by_kernel(
    raw: torch.Tensor,
    targets: torch.Tensor,
    shape: Shape = PLAIN,
    *,
    entropy: bool = False,
    gradient: torch.dtype | None = None,
    cotangents: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> OfLogits:
    """As :class:`alignzoo.logprobs.softmax.ByLogits` says, of fp32 logits on a GPU; they are left as they are."""
    count, vocabulary = raw.shape
    logps = torch.empty_like(raw[:, 0], memory_format=torch.contiguous_format)
    entropies = torch.empty_like(logps)
    found = torch.empty_like(raw, dtype=gradient) if gradient is not None else None
    of_logps, of_entropies = (logps, entropies) if cotangents is None else (c.contiguous() for c in cotangents)
    if count:
        _rows[(count,)](
            raw,
            targets,
            of_logps,
            of_entropies,
            logps,
            entropies,
            raw if found is None else found,
            raw.stride(0),
            vocabulary,
            SCALE=shape.scale,
            SOFTCAP=shape.softcap or 0.0,
            ENTROPY=entropy or cotangents is not None,
            GRADIENT=found is not None,
            COTANGENTS=cotangents is not None,
            BLOCK=min(BLOCK, triton.next_power_of_2(vocabulary)),
            num_warps=8,
        )
    return OfLogits(logps, entropies if entropy or cotangents is not None else None, found)


@triton.jit
def _capped(raw, SCALE: tl.constexpr, SOFTCAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Logits, and tanh of what is capped."""
    logits = raw * SCALE
    bent = logits
    if SOFTCAP != 0.0:
        # tanh of -|x|, from an exponential that cannot overflow
        small = tl.exp(-2.0 * tl.abs(logits / SOFTCAP))
        bent = (1.0 - small) / (1.0 + small)
        bent = tl.where(logits < 0, -bent, bent)
        logits = bent * SOFTCAP
    return logits, bent


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    raw, vocabulary, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr
):
    """Of a row's logits: the highest; Σ exp(logit - highest); and with ENTROPY, of this times (logit - highest)."""
    highest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    weighted = tl.zeros((), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        there = columns < vocabulary
        logits, _ = _capped(tl.load(raw + columns, mask=there, other=0.0), SCALE, SOFTCAP)
        logits = tl.where(there, logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, 0))
        shrunk = tl.exp(highest - higher)
        powers = tl.exp(logits - higher)
        if ENTROPY:
            moved = tl.where(total > 0, total * (highest - higher), 0.0)
            terms = tl.where(there, powers * (logits - higher), 0.0)
            weighted = (weighted + moved) * shrunk + tl.sum(terms, 0)
        total = total * shrunk + tl.sum(powers, 0)
        highest = higher
    return highest, total, weighted


@triton.jit
def _rows(  # type: ignore[no-untyped-def]
    raw,
    targets,
    of_logps,
    of_entropies,
    logps,
    entropies,
    gradients,
    stride,
    vocabulary,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr,
    GRADIENT: tl.constexpr,
    COTANGENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    raw += row * stride
    target = tl.load(targets + row)
    highest, total, weighted = _sums(raw, vocabulary, SCALE, SOFTCAP, ENTROPY, BLOCK)
    at_target, _ = _capped(tl.load(raw + target), SCALE, SOFTCAP)
    tl.store(logps + row, at_target - highest - tl.log(total))
    entropy = tl.zeros((), tl.float32)
    if ENTROPY:
        entropy = tl.log(total) - weighted / total
        tl.store(entropies + row, entropy)
    if GRADIENT:
        factor = tl.full((), 1.0, tl.float32)
        if COTANGENTS:
            factor = tl.load(of_logps + row)
            of_entropy = tl.load(of_entropies + row)
        gradients += row * vocabulary
        for start in range(0, vocabulary, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            there = columns < vocabulary
            logits, bent = _capped(tl.load(raw + columns, mask=there, other=0.0), SCALE, SOFTCAP)
            own = logits - highest - tl.log(total)
            gradient = -tl.exp(own) * factor
            if COTANGENTS:
                gradient -= tl.exp(own) * of_entropy * (own + entropy)
            gradient = tl.where(columns == target, gradient + factor, gradient)
            if SOFTCAP != 0.0:
                gradient *= 1.0 - bent * bent
            gradient *= SCALE
            tl.store(gradients + columns, gradient.to(gradients.dtype.element_ty), mask=there)
