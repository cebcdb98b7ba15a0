"""Work of an optimizer step on one device, and the time it takes at a given rate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo_estimate.micro_batch import Lengths

if TYPE_CHECKING:
    from alignzoo_estimate.situation import Situation

_TWICE = 2.0
"""Work of a pass with gradients by the input embeddings, relative to one without: their own backward pass, and one
through that."""
_FLASH_BACKWARD = 2.5
"""Work of attention's backward relative to its forward: the scores are recomputed."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a step on one device, by purpose."""

    layers: float
    attention: float
    head: float
    reference: float
    forwards: float

    @property
    def total(self) -> float:
        """FLOPs of a step on one device."""
        return self.layers + self.attention + self.head + self.reference + self.forwards


def work(s: Situation) -> Work:
    """The work of a mean step."""
    rows = [s.data.mean] * s.rows_per_step
    linear, attention, head = _forward(s, rows)
    factor = 2.0 if not s.settings.lora_r else 1.0
    adapter = 2.0 * s.trained * tokens(rows, s.packed) if s.settings.lora_r else 0.0
    again = 1.0 if s.settings.activation_checkpointing else 0.0
    layers = linear * (1 + factor + again) + adapter * (3 + again)
    attended = attention * (1 + _FLASH_BACKWARD + again)
    at_head = head * (1 + factor + (1.0 if factor > 1 and s.recomputes_head else 0.0))
    once = linear + adapter + attention + head
    if s.statistics.kl:  # the reference's logits, and their part of the gradient by inputs of a frozen head
        at_head += head * (2.0 if factor == 1.0 or s.recomputes_head else 1.0)
        once += head
    twice = _TWICE if s.statistics.embeddings else 1.0
    reference = linear + attention + head if s.computes_reference else 0.0
    passes = s.passes * twice
    return Work(passes * layers, passes * attended, passes * at_head, reference, s.forwards * once * twice)


def tokens(rows: Sequence[Lengths], packed: bool) -> int:
    """Tokens that go through the layers, including padding."""
    return sum(one.packed if packed else len(one.responses) * one.longest for one in rows)


def _forward(s: Situation, rows: Sequence[Lengths]) -> tuple[float, float, float]:
    """FLOPs of the layers' linear maps, of attention and of the head."""
    linear = 2.0 * s.shapes.linear * tokens(rows, s.packed)
    scores = sum(_scores(one, s.packed) for one in rows)
    responses = sum(one.response for one in rows)
    return linear, 4.0 * s.shapes.attention * scores, 2.0 * s.shapes.hidden * s.shapes.vocabulary * responses


def _scores(row: Lengths, packed: bool) -> float:
    """Attention scores computed: causality saves half of them if no mask is needed."""
    if packed:
        first, *further = row.responses
        return (row.prompt + first) ** 2 / 2 + sum(size * (row.prompt + size) for size in further)
    return float(len(row.responses) * row.longest**2)


def measured_rate(*, bf16: bool, seconds: float = 2.0, size: int = 1024) -> float:
    """FLOP/s of matrix products on this machine's CPU, measured for about ``seconds``."""
    import torch

    dtype = torch.bfloat16 if bf16 else torch.float32
    one, other = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    one @ other
    begin, count = time.perf_counter(), 0
    while (took := time.perf_counter() - begin) < seconds or count == 0:
        one @ other
        count += 1
    return 2.0 * size**3 * count / took
