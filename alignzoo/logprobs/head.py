"""Log-probs of tokens from hidden states: linear head, log-softmax and gather in one, a chunk of positions at a time.

The logits of K positions over V tokens are the largest tensor of a step by far. Here they exist for a chunk at a time.
What the backward pass needs of them (one-hot less softmax) is kept where it is small, computed again where it is not,
and not needed at all where the head is frozen: a token's cotangent is one factor, so the gradient by its own hidden
state can be taken in the forward pass. The cotangents enter as factors of the small operands of the backward's
products, and no pass over K·V numbers is left in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from alignzoo.logprobs.products import Head
from alignzoo.logprobs.softmax import PLAIN, ByLogits, Shape, by_torch, chosen

CHUNK, CHUNK_ON_A_GPU = 1 << 24, 1 << 26
"""Logits in memory at a time (64, 256 MiB in fp32), and as many log-probs or their gradients. A chunk reads the whole
head and adds to its whole gradient, which takes a GPU longer than the products themselves if it has few positions."""
KEPT = 1 << 27
"""Up to this many bytes, the gradient by the logits is kept for the backward pass; above, it is recomputed."""


def token_logps(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    shape: Shape = PLAIN,
    entropy: bool = False,
    chunk: int | None = None,
    kept: int = KEPT,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probs of ``targets`` and, if asked for, entropies of the distributions, in nats.

    Args:
        hidden: ``(K, H)``, the head's inputs.
        weight: ``(V, H)``, of the head; ``bias`` is ``(V,)``.
        targets: ``(K,)`` int64.
        chunk: logits that exist at a time; by default those of :func:`chunk_on`.
        kept: bytes up to which the gradient by the logits is kept for the backward pass.

    Returns:
        ``(K,)`` each; fp32, or fp64 for fp64 inputs. Under autocast the products' operands are in its dtype; their
        sums, and everything from the logits on, are fp32.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        way = _Way(dtype, shape, entropy, chunk or chunk_on(device), kept, torch.is_grad_enabled())
        values, entropies = _TokenLogps.apply(hidden, weight, bias, targets, way)
    return values, entropies if entropy else None


def chunk_on(device: str) -> int:
    """Logits that exist at a time on a kind of device."""
    return CHUNK if device == "cpu" else CHUNK_ON_A_GPU


@dataclass(frozen=True)
class _Way:
    """How the numbers are to be computed."""

    dtype: torch.dtype
    shape: Shape
    entropy: bool
    chunk: int
    kept: int
    differentiated: bool  # needs_input_grad says it whether or not anything records


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, way: _Way) -> Any:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        count, vocabulary = len(targets), len(weight)
        values = torch.empty(count, dtype=wide, device=hidden.device)
        entropies = torch.empty(count if way.entropy else 0, dtype=wide, device=hidden.device)
        of_hidden = way.differentiated and ctx.needs_input_grad[0]
        of_head = way.differentiated and any(ctx.needs_input_grad[1:3])
        ctx.keeps = of_head and not way.entropy and count * vocabulary * way.dtype.itemsize <= way.kept
        ctx.taken = of_hidden and not of_head and not way.entropy
        head = Head(weight, bias, way.dtype, wide)
        rows, by_logits = head.rows(hidden), _by_logits(hidden, head)
        parts, kept = parts_of(count, vocabulary, way.chunk), None
        if ctx.keeps and len(parts) > 1:  # one part's gradient is kept as it is
            kept = rows.new_empty(count, vocabulary)
        elif ctx.taken:
            kept = rows.new_empty(count, rows.shape[1], dtype=wide)
        wanted = head.of_gradients if ctx.keeps or ctx.taken else None
        for part in parts:
            found = by_logits(
                head.logits(rows[part], targets[part]), targets[part], way.shape, entropy=way.entropy, gradient=wanted
            )
            values[part] = found.logps
            if found.entropies is not None:
                entropies[part] = found.entropies
            if found.gradient is not None:
                if kept is None:
                    kept = found.gradient.to(head.dtype)
                else:
                    kept[part] = found.gradient if ctx.keeps else head.of_hidden(found.gradient)
            del found
        ctx.way, ctx.vocabulary = way, vocabulary
        ctx.save_for_backward(hidden, weight, bias, targets, kept)
        return values, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: Any, of_entropies: Any) -> Any:
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        way: _Way = ctx.way
        if ctx.taken:
            return (kept * of_values[:, None]).to(hidden.dtype), None, None, None, None
        head = Head(weight, bias, way.dtype, of_values.dtype)
        rows, by_logits = head.rows(hidden), _by_logits(hidden, head)
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        for part in parts_of(len(targets), ctx.vocabulary, len(targets) * ctx.vocabulary if ctx.keeps else way.chunk):
            factor = of_values[part, None]
            if ctx.keeps:
                gradient = kept
            else:
                cotangents = (of_values[part], of_entropies[part]) if way.entropy else None
                gradient = by_logits(
                    head.logits(rows[part], targets[part]),
                    targets[part],
                    way.shape,
                    gradient=head.of_gradients,
                    cotangents=cotangents,
                ).gradient
                factor = torch.ones_like(factor) if way.entropy else factor
            if of_hidden is not None:
                of_hidden[part] = head.of_hidden(gradient) * factor
            if ctx.needs_input_grad[1]:
                of_weight = head.added(of_weight, gradient, (rows[part] * factor).to(way.dtype))
            if bias is not None and ctx.needs_input_grad[2]:
                of_bias = head.added(of_bias, gradient, factor.to(way.dtype))
            del gradient
        return of_hidden, head.as_weight(of_weight), head.as_bias(of_bias), None, None


def _by_logits(hidden: torch.Tensor, head: Head) -> ByLogits:
    """The way for these; tensors that only stand for others, as in a simulation, are not tried on a device."""
    if type(hidden) is not torch.Tensor or head.wide != torch.float32:
        return by_torch
    return chosen(hidden.device, head.of_gradients).way


def parts_of(count: int, vocabulary: int, chunk: int) -> list[slice]:
    """Equal parts of the positions, of at most ``chunk`` logits each, or of one position."""
    rows = max(1, chunk // vocabulary)
    parts = -(-count // rows)
    size = -(-count // parts) if parts else 1
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
