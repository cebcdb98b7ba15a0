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
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

CHUNK = 1 << 24
"""Logits in memory at a time, 64 MiB in fp32, plus as many log-probs."""
KEPT = 1 << 25
"""Up to this many logits, their gradient is kept for the backward pass (128 MiB); above, it is recomputed."""


@dataclass(frozen=True)
class Shape:
    """A model's transformation of its logits: ``softcap · tanh(scale · x / softcap)``."""

    scale: float = 1.0
    softcap: float | None = None

    def applied(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits from raw ones (overwritten), and their derivative by the raw ones where that is no plain number."""
        logits = raw.mul_(self.scale) if self.scale != 1.0 else raw
        if self.softcap is None:
            return logits, None
        logits = logits.div_(self.softcap).tanh_()
        slope = (1 - logits.square()).mul_(self.scale)
        return logits.mul_(self.softcap), slope


PLAIN = Shape()


def token_logps(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    shape: Shape = PLAIN,
    entropy: bool = False,
    chunk: int = CHUNK,
    kept: int = KEPT,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probs of ``targets`` and, if asked for, entropies of the distributions, in nats.

    Args:
        hidden: ``(K, H)``, the head's inputs.
        weight: ``(V, H)``, of the head; ``bias`` is ``(V,)``.
        targets: ``(K,)`` int64.
        chunk: logits that exist at a time.
        kept: logits up to which their gradient is kept for the backward pass.

    Returns:
        ``(K,)`` each; fp32, or fp64 for fp64 inputs. Under autocast the products are in its dtype, and everything from
        the logits on is fp32.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        way = _Way(dtype, shape, entropy, chunk, kept, torch.is_grad_enabled())
        values, entropies = _TokenLogps.apply(hidden, weight, bias, targets, way)
    return values, entropies if entropy else None


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
        ctx.keeps = of_head and not way.entropy and count * vocabulary <= way.kept
        ctx.taken = of_hidden and not of_head and not way.entropy
        rows, inputs = hidden.to(way.dtype), weight.to(way.dtype)
        parts, kept = parts_of(count, vocabulary, way.chunk), None
        if (ctx.keeps and len(parts) > 1) or ctx.taken:  # one part's gradient is kept as it is
            kept = rows.new_empty(count, vocabulary if ctx.keeps else rows.shape[1])
        for part in parts:
            logits, slope = _logits(rows[part], inputs, bias, way, wide)
            logps = torch.log_softmax(logits, -1)
            del logits
            values[part] = logps.gather(-1, targets[part, None])[:, 0]
            if way.entropy:
                entropies[part] = -(logps.exp() * logps).sum(-1)
            if ctx.keeps or ctx.taken:
                gradient = _less_softmax(logps, targets[part], slope, way)
                if kept is None:
                    kept = gradient
                else:
                    kept[part] = gradient if ctx.keeps else gradient @ inputs
                del gradient
            del logps
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
        rows, inputs = hidden.to(way.dtype), weight.to(way.dtype)
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        for part in parts_of(len(targets), ctx.vocabulary, len(targets) * ctx.vocabulary if ctx.keeps else way.chunk):
            factor = of_values[part, None]
            if ctx.keeps:
                gradient = kept
            else:
                cotangents = (of_values[part], of_entropies[part])
                gradient = _again(rows[part], inputs, bias, targets[part], way, *cotangents)
                factor = torch.ones_like(factor) if way.entropy else factor
            if of_hidden is not None:
                of_hidden[part] = (gradient @ inputs).to(hidden.dtype) * factor
            if ctx.needs_input_grad[1]:
                of_weight = added_to(of_weight, gradient.t(), (rows[part] * factor).to(way.dtype), weight.dtype)
            if bias is not None and ctx.needs_input_grad[2]:
                of_bias = added_to(of_bias, gradient.t(), factor.to(way.dtype), bias.dtype)
        return of_hidden, of_weight, None if of_bias is None else of_bias[:, 0], None, None


def added_to(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``total + left @ right``, in place where the product has its dtype: it is as large as the head."""
    if total is None:
        return (left @ right).to(dtype)
    return total.addmm_(left, right) if left.dtype == dtype else total.add_(left @ right)


def parts_of(count: int, vocabulary: int, chunk: int) -> list[slice]:
    """Equal parts of the positions, of at most ``chunk`` logits each, or of one position."""
    rows = max(1, chunk // vocabulary)
    parts = -(-count // rows)
    size = -(-count // parts) if parts else 1
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _logits(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, way: _Way, wide: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return way.shape.applied(F.linear(rows, weight, None if bias is None else bias.to(way.dtype)).to(wide))


def _less_softmax(logps: torch.Tensor, targets: torch.Tensor, slope: torch.Tensor | None, way: _Way) -> torch.Tensor:
    """One-hot less softmax, the gradient of the targets' log-probs by the raw logits; overwrites ``logps``."""
    gradient = logps.exp_().neg_()
    gradient[torch.arange(len(targets), device=targets.device), targets] += 1
    if slope is not None:
        gradient.mul_(slope)
    elif way.shape.scale != 1.0:
        gradient.mul_(way.shape.scale)
    return gradient.to(way.dtype)


def _again(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    way: _Way,
    of_values: torch.Tensor,
    of_entropies: torch.Tensor,
) -> torch.Tensor:
    """The gradient by the raw logits of a part, whose logits are computed once more: of the log-probs, each by a
    cotangent of 1; or, where there are entropies, of both under their cotangents."""
    logits, slope = _logits(rows, weight, bias, way, of_values.dtype)
    logps = torch.log_softmax(logits, -1)
    del logits
    if not way.entropy:
        return _less_softmax(logps, targets, slope, way)
    probabilities = logps.exp()
    entropies = -(probabilities * logps).sum(-1, keepdim=True)
    of_both = probabilities * (-of_values[:, None] - of_entropies[:, None] * (logps + entropies))
    of_both[torch.arange(len(targets), device=targets.device), targets] += of_values
    of_both.mul_(slope if slope is not None else way.shape.scale)
    return of_both.to(way.dtype)
