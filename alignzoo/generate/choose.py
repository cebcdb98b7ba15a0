"""The next token of each row: the most probable one, or one drawn with the row's own generator."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.generate.decoding import Decoding
from alignzoo.lazy import F, torch


@dataclass
class Row:
    """A prompt in generation.

    Attributes:
        index: of the prompt.
        prompt: its token ids.
        new: the response's token ids.
        generator: for sampling.
        processors: transformers' logits processors for this prompt.
    """

    index: int
    prompt: list[int]
    new: list[int] = field(default_factory=list)
    generator: Any = None
    processors: Any = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and the response."""
        return len(self.prompt) + len(self.new)


class Chooser:
    """Chooses tokens.

    The model's generation config changes logits as it does in a greedy ``model.generate``, which lm-eval calls:
    repetition penalty, suppressed tokens and so on. Its temperature, ``top_p`` and ``top_k`` do not count.
    """

    def __init__(self, model: Any, decoding: Decoding) -> None:
        self._model = model
        self._decoding = decoding
        self._config = _greedy_config(model)
        self._processes = bool(self._processors(1))

    def row(self, index: int, prompt: Sequence[int]) -> Row:
        """A row for a prompt, before its first token."""
        row = Row(index, list(prompt))
        if not self._decoding.greedy:
            row.generator = torch.Generator().manual_seed(seed_of(self._decoding.seed, index))
        if self._processes:
            row.processors = self._processors(len(prompt))
        return row

    def extend(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Give each row its next token.

        Args:
            logits: (rows, vocabulary).
        """
        if self._processes:
            logits = torch.cat([self._processed(row, logits[i : i + 1]) for i, row in enumerate(rows)])
        chosen = logits.argmax(dim=-1) if self._decoding.greedy else self._drawn(rows, logits)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.new.append(token)

    def _processed(self, row: Row, logits: torch.Tensor) -> torch.Tensor:
        tokens = torch.tensor([row.prompt + row.new], device=logits.device)
        return row.processors(tokens, logits.float())

    def _processors(self, length: int) -> Any:
        config = copy.copy(self._config)
        config.max_length = length + self._decoding.max_new_tokens
        return self._model._get_logits_processor(config, input_ids_seq_length=length, device=self._model.device)

    def _drawn(self, rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor:
        """A draw by inverting the distribution function: one uniform number a row, whatever else is in the batch."""
        chances = torch.cat([torch.rand(1, generator=row.generator, dtype=torch.float64) for row in rows])
        probs = distribution(logits, self._decoding).double().cumsum(dim=-1)
        targets = chances.to(probs.device)[:, None] * probs[:, -1:]
        return torch.searchsorted(probs, targets, right=True)[:, 0].clamp(max=probs.shape[1] - 1)


def distribution(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Probabilities (rows, vocabulary) to sample from: temperature, then ``top_k``, then ``top_p``, as transformers."""
    logits = logits.float() / decoding.temperature
    if 0 < decoding.top_k < logits.shape[-1]:
        least = logits.topk(decoding.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probs = F.softmax(logits, dim=-1)
    if decoding.top_p == 1:
        return probs
    ordered, order = probs.sort(dim=-1, descending=True)
    beyond = ordered.cumsum(dim=-1) - ordered >= decoding.top_p
    probs = probs.scatter(1, order, ordered.masked_fill(beyond, 0.0))
    return probs / probs.sum(dim=-1, keepdim=True)


def _greedy_config(model: Any) -> Any:
    """The generation config of a greedy ``model.generate``."""
    config, _ = model._prepare_generation_config(None, do_sample=False)
    model._prepare_special_tokens(config, device=model.device)
    return config


def seed_of(seed: int, index: int) -> int:
    """The seed of one prompt's generator."""
    return int.from_bytes(hashlib.sha256(repr((seed, index)).encode()).digest()[:7], "little")
