"""A reference that moves toward the policy during training: a full copy of the model, computed in every step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.errors import UsageError
from alignzoo.logprobs.logps import Forward
from alignzoo.logprobs.statistics import NOTHING, Ask
from alignzoo.model.narrow import widened


class MovingReference:
    """Log-probs of responses under a reference whose weights can be mixed with the policy's.

    An adapted policy is compared with what it computes with: its base with the adapter merged. Mixing A and B of an
    adapter would not mix their product.

    Args:
        policy: the policy, unwrapped; its weights at this moment are the reference's.
        forward: from a model and a batch to its responses.
        wrap: prepares a frozen model for the accelerator (autocast).
        ask: what a pass computes beside log-probs.
        start: a model with other weights to start from, of the same architecture without adapters.

    Raises:
        UsageError: the policy's adapter cannot be merged into its base, or its base is quantised.
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        forward: Forward,
        wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model,
        ask: Ask = NOTHING,
        *,
        start: torch.nn.Module | None = None,
    ) -> None:
        self._policy = policy
        self._forward = forward if ask == NOTHING else lambda model, batch: forward(model, batch, ask)
        self._copy = (_merged(policy) if start is None else copy.deepcopy(start)).requires_grad_(False).eval()
        self._model = wrap(self._copy)
        self._moved: set[str] = set()

    @torch.no_grad()
    def __call__(self, batch: TokenBatch) -> ResponseBatch:
        """The batch's responses, with their log-probs under the reference's present weights."""
        return self._forward(self._model, batch)

    @torch.no_grad()
    def mix(self, share: float) -> None:
        """Replace this share of every weight of the reference by the policy's: 0 for nothing, 1 for a copy."""
        if share == 0:
            return
        policy = dict(_merged(self._policy, copied=False).named_parameters())
        for name, weight in self._copy.named_parameters():
            target = policy[name].detach()
            if torch.equal(weight, target):
                continue
            self._moved.add(name)
            if share == 1:
                weight.copy_(target)
            else:
                weight.lerp_(target.to(weight.dtype), share)

    @torch.no_grad()
    def distance(self) -> float:
        """‖policy − reference‖, Euclidean over all weights."""
        policy = dict(_merged(self._policy, copied=False).named_parameters())
        squares = [(policy[name].detach() - weight).float().square().sum() for name, weight in self._weights().items()]
        return float(torch.stack(squares).sum().sqrt())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights that have moved."""
        return {name: weight.detach().clone() for name, weight in self._weights().items() if name in self._moved}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        weights = self._weights()
        for name, value in state.items():
            weights[name].copy_(value)
        self._moved = set(state)

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return dict(self._copy.named_parameters())


def _merged(policy: Any, *, copied: bool = True) -> torch.nn.Module:
    """The policy without adapters, these merged into it; a copy, which may be left out where there are none."""
    if not hasattr(policy, "peft_config"):
        return copy.deepcopy(policy) if copied else policy
    if getattr(policy.get_base_model(), "is_quantized", False):
        raise UsageError(
            "the base of this run is quantised, and a reference that moves cannot be",
            hint="leave out --quantize, or the method that moves the reference",
        )
    try:
        merged: torch.nn.Module = widened(copy.deepcopy(policy)).merge_and_unload()
    except (AttributeError, NotImplementedError) as error:
        raise UsageError(
            "this kind of adapter cannot be merged into its base, so the reference cannot be moved towards it",
            hint="train all weights or a LoRA adapter, or leave out the method that moves the reference",
        ) from error
    return merged
