"""The frozen reference: the policy before the first step.

Full fine-tuning keeps a snapshot of the weights; a new LoRA adapter is switched off; a previously trained adapter has
a frozen copy. Always in eval mode, without gradients, and without side effects on the policy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.logprobs.logps import Forward
from alignzoo.logprobs.statistics import NOTHING, Ask
from alignzoo.logprobs.teacher import apart
from alignzoo.model.base import REFERENCE_ADAPTER

ReferenceForward = Callable[[TokenBatch], ResponseBatch]
"""A batch's responses, with their log-probs under the reference: :class:`Reference`, or a table of them."""


class Reference:
    """Log-probs of responses under the reference.

    Args:
        policy: the policy before training, unwrapped.
        forward: from a model and a batch to its responses.
        wrap: prepares a frozen model for the accelerator (sharding, autocast).
        ask: what a pass computes beside log-probs.
        copied: gives a copy of the policy.
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        forward: Forward,
        wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model,
        ask: Ask = NOTHING,
        *,
        copied: Callable[[torch.nn.Module], torch.nn.Module] = copy.deepcopy,
    ) -> None:
        self._forward = forward if ask == NOTHING else lambda model, batch: forward(model, batch, ask)
        self._adapted = policy if hasattr(policy, "peft_config") else None
        self._snapshot = None if self._adapted is not None else wrap(copied(policy).requires_grad_(False).eval())

    @torch.no_grad()
    def __call__(self, batch: TokenBatch) -> ResponseBatch:
        """The batch's responses, with their log-probs under the reference weights."""
        if self._snapshot is not None:
            return self._forward(self._snapshot, batch)
        assert self._adapted is not None
        with as_reference(self._adapted):
            return self._forward(self._adapted, batch)


def as_it_is(policy: Any, forward: Forward, batches: Sequence[TokenBatch], ask: Ask) -> list[ResponseBatch]:
    """What a policy says of these batches now, kept as its weights change; ``ask`` as of :class:`Reference`."""
    if ask == NOTHING:
        return [forward(policy, batch) for batch in batches]
    copies: dict[int, Any] = {}
    return [apart(forward(policy, batch, ask), copies) for batch in batches]


@contextmanager
def as_reference(policy: Any) -> Iterator[None]:
    """Inside, a policy acts as the reference, provided training has not changed its weights (an adapter's may have
    changed); without gradients. Everything is restored, also after an exception."""
    with torch.no_grad():
        if hasattr(policy, "peft_config"):
            with _reference_adapter(policy):
                yield
            return
        training = policy.training
        policy.eval()
        try:
            yield
        finally:
            policy.train(training)


@contextmanager
def _reference_adapter(model: Any) -> Iterator[None]:
    """The adapter off, or replaced by the reference's copy; eval mode; restored afterwards, also after an exception."""
    training = model.training
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.eval()
    try:
        if REFERENCE_ADAPTER in model.peft_config:
            model.set_adapter(REFERENCE_ADAPTER)
            yield
        else:
            with model.disable_adapter():
                yield
    finally:
        if REFERENCE_ADAPTER in model.peft_config:
            model.set_adapter("default")
        model.train(training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
