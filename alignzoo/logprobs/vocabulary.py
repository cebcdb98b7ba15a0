"""Log-probs of tokens with what needs the whole vocabulary at their positions, a chunk of positions at a time.

KL(p_ref ‖ p) = Σ p_ref (log p_ref − log p), whose gradient by the logits of p is p − p_ref; H(p)/log V; and log Σ p².
A run that asks for none of these uses :mod:`alignzoo.logprobs.head` alone. As there, what the backward pass needs is
kept where it is small, computed again where it is not, and where the head is frozen, its products with the head are all
that is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from alignzoo.logprobs.head import CHUNK, KEPT, chunk_on, parts_of
from alignzoo.logprobs.products import Head
from alignzoo.logprobs.softmax import PLAIN, Shape, log_softmax_, one_hot_less
from alignzoo.logprobs.teacher import Reading, Teacher


class Values(NamedTuple):
    """Of K tokens, ``(K,)`` each, in nats: log-probs; KL from the teacher; detached: entropies divided by log V, and
    log Σ p²."""

    logps: torch.Tensor
    kls: torch.Tensor | None = None
    entropies: torch.Tensor | None = None
    collisions: torch.Tensor | None = None


def values_at(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    shape: Shape = PLAIN,
    teacher: Teacher | None = None,
    entropies: bool = False,
    collisions: bool = False,
    chunk: int | None = None,
    kept: int = KEPT,
) -> Values:
    """Log-probs of ``targets``, and what is asked for beside them; arguments as of
    :func:`alignzoo.logprobs.head.token_logps`."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        reading = None if teacher is None else teacher.opened()
        size = chunk or chunk_on(device)
        way = _Way(dtype, shape, reading, entropies, collisions, size, kept, torch.is_grad_enabled())
        found = _Values.apply(hidden, weight, bias, targets, way)
    logps, kls, of_entropy, of_collisions = found
    return Values(
        logps,
        None if teacher is None else kls,
        of_entropy if entropies else None,
        of_collisions if collisions else None,
    )


def values_of_logits(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    teacher: Teacher | None = None,
    entropies: bool = False,
    collisions: bool = False,
    chunk: int = CHUNK,
) -> Values:
    """The same from logits ``(K, V)``; the log-probs can be differentiated twice."""
    logps = -F.cross_entropy(logits, targets, reduction="none")
    parts = parts_of(len(targets), logits.shape[-1], chunk)
    kls = None if teacher is None else _KLs.apply(logits, teacher.opened(), parts)
    if not (entropies or collisions):
        return Values(logps, kls)
    with torch.no_grad():
        found = [_constants(torch.log_softmax(logits[part], -1), entropies, collisions) for part in parts]
    of_entropy, of_collisions = (torch.cat(values) for values in zip(*found, strict=True))
    return Values(logps, kls, of_entropy if entropies else None, of_collisions if collisions else None)


@dataclass(frozen=True)
class _Way:
    """How the numbers are to be computed; see ``_Way`` of :mod:`alignzoo.logprobs.head`."""

    dtype: torch.dtype
    shape: Shape
    reading: Reading | None
    entropies: bool
    collisions: bool
    chunk: int
    kept: int
    differentiated: bool

    def parts(self, count: int, vocabulary: int) -> list[slice]:
        """Two models' logits exist at a time."""
        return parts_of(count, vocabulary, self.chunk if self.reading is None else self.chunk // 2)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, way: _Way) -> Any:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        count, vocabulary = len(targets), len(weight)
        logps, kls, entropies, collisions = (torch.empty(count, dtype=wide, device=hidden.device) for _ in range(4))
        of_hidden = way.differentiated and ctx.needs_input_grad[0]
        of_head = way.differentiated and any(ctx.needs_input_grad[1:3])
        each = 1 if way.reading is None else 2  # gradients, of log-probs and of KL
        head = Head(weight, bias, way.dtype, wide)
        ctx.keeps = of_head and each * count * vocabulary * head.of_gradients.itemsize <= way.kept
        ctx.taken = of_hidden and not of_head
        rows, kept = head.rows(hidden), None
        if ctx.keeps:
            kept = rows.new_empty(each, count, vocabulary, dtype=head.of_gradients)
        elif ctx.taken:
            kept = rows.new_empty(each, count, rows.shape[1], dtype=wide)
        for part in way.parts(count, vocabulary):
            logits, slope = way.shape.applied(head.logits(rows[part], targets[part]))
            own = log_softmax_(logits)
            del logits
            logps[part] = own.gather(-1, targets[part, None])[:, 0]
            entropies[part], collisions[part] = _constants(own, way.entropies, way.collisions)
            theirs = None
            if way.reading is not None:
                theirs = way.reading(part)
                kls[part] = _kl(theirs, own)
            if kept is not None:
                gradients = _gradients(own, theirs, targets[part])
                for i, gradient in enumerate(gradients):
                    sloped = way.shape.sloped(gradient, slope).to(head.of_gradients)
                    kept[i, part] = sloped if ctx.keeps else head.of_hidden(sloped)
        ctx.way, ctx.vocabulary = way, vocabulary
        ctx.save_for_backward(hidden, weight, bias, targets, kept)
        ctx.mark_non_differentiable(entropies, collisions)
        return logps, kls, entropies, collisions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logps: Any, of_kls: Any, _entropies: Any, _collisions: Any) -> Any:
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        way: _Way = ctx.way
        cotangents = [of_logps, of_kls][: 1 if way.reading is None else 2]
        if ctx.taken:
            found = sum(given * cotangent[:, None] for given, cotangent in zip(kept, cotangents, strict=True))
            return found.to(hidden.dtype), None, None, None, None
        head = Head(weight, bias, way.dtype, of_logps.dtype)
        rows = head.rows(hidden)
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        for part in way.parts(len(targets), ctx.vocabulary):
            theirs = [cotangent[part, None] for cotangent in cotangents]
            if ctx.keeps:
                gradient = sum(given[part] * cotangent for given, cotangent in zip(kept, theirs, strict=True))
            else:
                gradient = _again(head, rows[part], targets[part], way, part, theirs)
            gradient = gradient.to(head.of_gradients)
            if of_hidden is not None:
                of_hidden[part] = head.of_hidden(gradient)
            if ctx.needs_input_grad[1]:
                of_weight = head.added(of_weight, gradient, rows[part])
            if bias is not None and ctx.needs_input_grad[2]:
                of_bias = head.added(of_bias, gradient, rows.new_ones(gradient.shape[0], 1))
        return of_hidden, head.as_weight(of_weight), head.as_bias(of_bias), None, None


def _again(
    head: Head,
    rows: torch.Tensor,
    targets: torch.Tensor,
    way: _Way,
    part: slice,
    cotangents: list[torch.Tensor],
) -> torch.Tensor:
    """The gradient by the raw logits of a part, whose logits are computed once more."""
    logits, slope = way.shape.applied(head.logits(rows, targets))
    theirs = None if way.reading is None else way.reading(part)
    gradients = _gradients(log_softmax_(logits), theirs, targets)
    found = gradients[0].mul_(cotangents[0])
    for gradient, cotangent in zip(gradients[1:], cotangents[1:], strict=True):
        found.addcmul_(gradient, cotangent)
    return way.shape.sloped(found, slope)


class _KLs(torch.autograd.Function):
    """``(K,)`` KL from a teacher's distributions to those of logits."""

    @staticmethod
    def forward(ctx: Any, logits: Any, reading: Reading, parts: list[slice]) -> Any:
        ctx.save_for_backward(logits)
        ctx.reading, ctx.parts = reading, parts
        return torch.cat([_kl(reading(part), torch.log_softmax(logits[part], -1)) for part in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangents: Any) -> Any:
        (logits,) = ctx.saved_tensors
        found = torch.empty_like(logits)
        for part in ctx.parts:
            theirs, own = ctx.reading(part).exp_(), torch.softmax(logits[part], -1)
            found[part] = own.sub_(theirs).mul_(cotangents[part, None])
        return found, None, None


def _kl(theirs: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """``(n,)`` KL of two models' log-probs ``(n, V)``."""
    return (theirs.exp() * (theirs - own)).sum(-1)


def _constants(own: torch.Tensor, entropies: bool, collisions: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """``(n,)`` each of log-probs ``(n, V)``: entropy/log V and log Σ p², or zeros for what is not asked for."""
    nothing = own.new_zeros(len(own))
    return (
        (own.exp() * own).sum(-1) / -math.log(own.shape[-1]) if entropies else nothing,
        torch.logsumexp(2 * own, -1) if collisions else nothing,
    )


def _gradients(own: torch.Tensor, theirs: torch.Tensor | None, targets: torch.Tensor) -> list[torch.Tensor]:
    """By the logits: of the targets' log-probs, one-hot − p; and with a teacher, of the KL, p − p_ref. Overwrites
    both models' log-probs."""
    own = own.exp_()
    found = [] if theirs is None else [own - theirs.exp_()]
    return [one_hot_less(own, targets), *found]
