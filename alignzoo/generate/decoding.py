"""How a response is decoded, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo.errors import UsageError


@dataclass(frozen=True)
class Decoding:
    """How responses are decoded.

    Attributes:
        max_new_tokens: most tokens of a response.
        temperature: 0 takes the most probable token (greedy); above 0 samples.
        top_p: sample from the smallest set of tokens with this total probability; 1 from all.
        top_k: sample from the ``top_k`` most probable tokens; 0 from all.
        until: texts that end a response. They are left out of it, as lm-eval leaves them out.
        seed: of sampling. Each prompt has a generator of its own, seeded by this and the prompt's index.

    Raises:
        UsageError: a value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    until: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or above"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or above"),
        }
        for name, (valid, range_) in rules.items():
            if not valid:
                raise UsageError(f"{name} is {getattr(self, name)}, expected {range_}")

    @property
    def greedy(self) -> bool:
        """Whether each token is the most probable one."""
        return self.temperature == 0


@dataclass(frozen=True)
class Response:
    """A generated response.

    Attributes:
        text: without special tokens, up to the first of the ``until`` texts.
        tokens: number of new tokens, the end token included.
        ended: the model ended it (or an ``until`` text did); False if it was cut at ``max_new_tokens``.
    """

    text: str
    tokens: int
    ended: bool
