"""Which weights FSDP2 gathers in the dtype of autocast: the linear maps of decoder layers.

Autocast rounds their weights on use, so gathering rounded ones gives the same numbers, with half the traffic, half the
memory, and no rounded copies that wait for the backward pass. Gradients are summed over ranks and micro-batches in
fp32. What else has weights in a layer is a norm, which autocast computes in fp32: norms stay in fp32, in a group of
their own. Shards, and so what controllers perturb and optimizers update, are fp32 as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


class GatheredLinear(torch.nn.Linear):
    """A linear map whose gathered weights are narrower than its inputs, unless autocast makes these as narrow."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return F.linear(input, self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype))


def policy_of_layers(dtype: torch.dtype) -> Any:
    """FSDP2's policy for layers of which :func:`norms_of` has taken the norms."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def norms_of(model: Any, layers: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The norms of decoder layers, if these consist of norms and linear maps, all in fp32, which then become
    :class:`GatheredLinear`; else none, and the layers are gathered as they are.

    Adapted models are gathered as they are, too: what is frozen in them is in 16 bits already, and what is trained is
    small.
    """
    from torch.distributed.fsdp import FSDPModule

    if hasattr(model, "peft_config") or not hasattr(FSDPModule, "reset_iter_state"):  # groups of modules before 2.13
        return []
    owners = [module for layer in layers for module in layer.modules() if _weights(module)]
    maps = [owner for owner in owners if type(owner) is torch.nn.Linear]
    norms = [owner for owner in owners if type(owner) is not torch.nn.Linear]
    wide = all(weight.dtype == torch.float32 for owner in owners for weight in _weights(owner))
    plain = all(weight.ndim == 1 for norm in norms for weight in _weights(norm))
    if not (wide and plain) or any(True for norm in norms for _ in norm.children()):
        return []
    for linear in maps if norms else ():
        linear.__class__ = GatheredLinear
    return norms


def gathers_rounded(model: torch.nn.Module) -> bool:
    """Whether what runs outside autocast reads rounded weights of this model."""
    return any(isinstance(module, GatheredLinear) for module in model.modules())


def _weights(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return list(module.parameters(recurse=False))
