"""A model's distributions over the vocabulary at the tokens of a micro-batch, kept for the pass of another model.

Kept are the inputs of its head ``(K, H)``, a few hundred times less than its log-probs ``(K, V)``; these are computed
from them when they are needed, for some positions at a time. Only of a model whose head is not fused, logits are kept:
on the host.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.distributed.shards import whole
from alignzoo.logprobs.products import Head
from alignzoo.logprobs.softmax import Shape, log_softmax_

Reading = Callable[[slice], torch.Tensor]
"""Log-probs ``(n, V)`` at some positions, fp32 or fp64; a new tensor."""


class Teacher(Protocol):
    """What a model said at K positions."""

    def opened(self) -> Reading:
        """Its log-probs at some positions at a time; gathers the head's weights where they are sharded."""


@dataclass(frozen=True)
class HeadInputs:
    """The inputs of a model's fused head.

    Attributes:
        hidden: ``(K, H)``, detached.
        head: whose weights are still those that ``hidden`` was made for.
        dtype: that its products are computed in.
    """

    hidden: torch.Tensor
    head: torch.nn.Linear
    shape: Shape
    dtype: torch.dtype

    @torch.no_grad()
    def opened(self) -> Reading:
        wide = torch.promote_types(self.hidden.dtype, torch.float32)
        bias = None if self.head.bias is None else whole(self.head.bias)
        head = Head(whole(self.head.weight), bias, self.dtype, wide)
        if not head.in_blocks:
            head = replace(head, weight=head.operand)  # of sharded weights, a gathered copy need not stay beside it

        @torch.no_grad()
        def reading(part: slice) -> torch.Tensor:
            raw = head.logits(head.rows(self.hidden[part]))
            return log_softmax_(self.shape.applied(raw)[0])

        return reading


@dataclass(frozen=True)
class Logits:
    """The logits themselves, ``(K, V)`` on the host, and the device that computes with them."""

    logits: torch.Tensor
    device: torch.device

    def opened(self) -> Reading:
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        return lambda part: torch.log_softmax(self.logits[part].to(self.device, dtype=wide), -1)


@dataclass(frozen=True)
class Taught(ResponseBatch):
    """A batch's responses under a model, with what it said at their tokens."""

    teacher: Teacher | None = None


def apart(responses: ResponseBatch, copies: dict[int, Any]) -> ResponseBatch:
    """The same of a model whose head will change: with a copy of the head.

    Args:
        copies: made so far.
    """
    if not isinstance(responses, Taught) or not isinstance(teacher := responses.teacher, HeadInputs):
        return responses
    return replace(responses, teacher=replace(teacher, head=copy.deepcopy(teacher.head, copies)))


def teacher_of(responses: ResponseBatch | None) -> Teacher | None:
    """What a model said at the tokens of these responses, if it was kept."""
    return responses.teacher if isinstance(responses, Taught) else None
