"""What is tried before the first step, and on which rows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.data.lengths import Lengths
from alignzoo.errors import ModelError
from alignzoo.logprobs.logps import innermost, padded_logps
from alignzoo.logprobs.statistics import Ask
from alignzoo.plan.settings import Settings

_REACHES = re.compile("window|chunk|block|local|stride|sparse|topk")
"""Words in config names that indicate layers with distance-dependent behaviour."""


@dataclass(frozen=True)
class Sample:
    """The rows that packing was tried on, in one batch.

    Attributes:
        responses: with every token's log-prob, as the chosen way computed them, in the dtype of the weights; None if
            the trial was made by an earlier process.
    """

    batch: TokenBatch
    responses: ResponseBatch | None = None


class Passed(NamedTuple):
    """A trial that packing by segments has passed: :attr:`Choice.why`, and whether the head was fused."""

    why: str
    fused: bool


class Trials(Protocol):
    """Results of packing that earlier processes have tried with the same model and the same rows."""

    def of(self, sample: TokenBatch) -> Passed | None:
        """What was found where packing by segments has passed on these rows."""

    def keep(self, sample: TokenBatch, passed: Passed) -> None:
        """Remember that it has passed."""


def try_embeddings(policy: Any, sample: TokenBatch, autocast: torch.dtype | None) -> None:
    """Gradients by the input embeddings and, of these, by the weights; no gradient is left.

    Raises:
        ModelError: the model has none, or its layers cannot be differentiated twice.
    """
    kind, training = sample.input_ids.device.type, policy.training
    policy.eval()
    try:
        with torch.enable_grad(), torch.autocast(kind, autocast, enabled=autocast is not None):
            norms = padded_logps(policy, sample, Ask(embeddings=True)).embedding_norms
            assert norms is not None
            norms.sum().backward()  # a gradient by one weight alone would pass by layers that refuse
        reached = any(weight.grad is not None for weight in policy.parameters())
        why = None if reached else "none comes back to its weights"
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, IndexError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    finally:
        policy.train(training)
        policy.zero_grad(set_to_none=True)
    if why is not None:
        raise ModelError(
            f"a method of this run differentiates gradients by the input embeddings once more, which this model's "
            f"layers do not allow: {why}",
            hint="choose another method, or a model whose attention is computed by PyTorch (sdpa or eager)",
        )


def worth_trying(policy: Any, lengths: Lengths, first: Sequence[int]) -> list[int]:
    """Rows to try packing on: the shortest and the longest of the first step, and the one with the most responses where
    both have fewer; and those that are longest of all where the model has layers that may treat what is far apart in
    another way.

    Args:
        lengths: of all rows.
        first: rows of the first step.
    """
    by_length = sorted(first, key=lambda row: int(lengths.longest[row]))
    rows = [by_length[0], by_length[-1]]
    most = max(by_length, key=lambda row: int(lengths.responses[row]))
    if lengths.responses[most] > lengths.responses[rows].max():
        rows.append(most)
    if _reaches(policy) < int(lengths.packed.max()):
        rows += [int(lengths.longest.argmax()), int(lengths.packed.argmax())]
    return list(dict.fromkeys(rows))


def micro_batch(first: Sequence[int], lengths: Lengths, settings: Settings) -> list[int]:
    """Rows that are about as many tokens as a forward pass of the run has."""
    limit, rows = settings.tokens_per_micro_batch, list(first)
    if limit is None:
        return rows[: settings.micro_batch_size]
    fitting = int(np.searchsorted(np.cumsum(lengths.packed[rows]), limit, side="right"))
    return rows[: max(1, fitting)]


def _reaches(policy: Any) -> float:
    """Tokens up to which a model's layers look alike at all that came before, as far as its config tells."""
    model = innermost(policy)
    if not model._can_set_attn_implementation():  # its attention is its own, and may be anything
        return 0
    values = vars(model.config.get_text_config()).items()
    found = [v for name, v in values if type(v) is int and v > 0 and _REACHES.search(name)]
    return min(found, default=math.inf)
