"""A micro-batch to simulate: how it is run, its rows, and the bytes found."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class Way:
    """How a micro-batch is run.

    Attributes:
        rank: of a LoRA adapter, 0 for full fine-tuning.
        packed: everything in one row, each prompt once; otherwise every response padded, with its own prompt.
        frozen_bf16: the weights under an adapter are stored in bf16.
        cached: autocast keeps its copies of trained weights until the forward ends.
        cuda: the head computes as many logits at a time as on a GPU.
    """

    bf16: bool
    rank: int
    checkpointing: bool
    packed: bool
    frozen_bf16: bool = False
    cached: bool = True
    cuda: bool = False


@dataclass(frozen=True)
class Bytes:
    """Memory of a micro-batch besides weights, gradients and the rest of the step.

    Attributes:
        forward: at the peak of the decoder's forward pass.
        kept: after it; of these, ``copies`` are weights in bf16, ``saved_copies`` those that the backward pass needs
            (autocast lets go of the others when the forward pass ends).
        head: at the peak of the head's forward.
        turn: at the peak of the head's backward.
        layer: at the peak of the backward pass through the last layer.
        passed: small blocks that the decoder's forward allocated and freed again.
    """

    forward: float
    kept: float
    copies: float
    saved_copies: float
    head: float
    turn: float
    layer: float
    passed: float = 0.0

    @property
    def activations(self) -> float:
        """Those that the backward pass needs, beside weights."""
        return self.kept - self.copies

    def less(self, gone: float, copies: float = 0.0) -> Bytes:
        """Without so much that is kept for the backward pass, and without so many of the copies."""
        return Bytes(
            forward=self.forward - gone - copies,
            kept=self.kept - gone - copies,
            copies=self.copies - copies,
            saved_copies=max(0.0, self.saved_copies - copies),
            head=self.head - gone - copies,
            turn=self.turn - gone - min(copies, self.saved_copies),
            layer=self.layer - gone - min(copies, self.saved_copies),
            passed=self.passed,
        )

    def plus(self, other: Bytes, times: int) -> Bytes:
        """With so many times the other's bytes."""
        return Bytes(*(a + times * b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row of data: its prompt and each of its responses."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def packed(self) -> int:
        """Tokens of the row, counting the prompt once."""
        return self.prompt + self.response

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.prompt + max(self.responses)

    @property
    def response(self) -> int:
        """Tokens of all responses."""
        return sum(self.responses)

    def plus(self, other: Lengths) -> Lengths:
        """One row with the tokens of both."""
        responses = zip_longest(self.responses, other.responses, fillvalue=0)
        return Lengths(self.prompt + other.prompt, tuple(map(sum, responses)))


def merged(rows: Sequence[Lengths], most: int) -> tuple[Lengths, ...]:
    """The same tokens in at most ``most`` segments, which are faster to simulate.

    Everything saved is proportional to tokens except attention masks, which are small and grow here.
    """
    size = -(-len(rows) // most)
    return tuple(functools.reduce(Lengths.plus, rows[at : at + size]) for at in range(0, len(rows), size))
