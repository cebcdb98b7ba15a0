"""Frozen weights kept in bf16 under fp32 activations: half the memory, and no cast of them in any forward pass.

The weights of linear maps and of word embeddings are kept in bf16; what they return is what they would return from
fp32 copies under autocast, so a model that was saved in bf16 computes the same numbers, bit for bit. Everything else
(norms, the experts of a mixture, modules of other types and what is tied to theirs) stays in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D


class NarrowLinear(torch.nn.Linear):
    """A linear map whose weights may be narrower than its inputs; under autocast as any other.

    Attributes:
        compute_dtype: the dtype in which peft makes a new adapter on it; in that of the weights, A would be rounded.
    """

    compute_dtype = torch.float32

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias).to(input.dtype)


class NarrowConv1D(Conv1D):
    """The same for GPT-2's linear maps, which are stored transposed."""

    compute_dtype = torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class NarrowEmbedding(torch.nn.Embedding):
    """Embeddings that are looked up in a narrow table and returned in fp32, so that the residual stream is fp32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found = super().forward(input)
        return found.to(torch.promote_types(found.dtype, torch.float32))


class NarrowScaledEmbedding(NarrowEmbedding):
    """The same for embeddings that are returned times a constant, which is of fp32, too: 16 bits would round it."""

    scalar_embed_scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found = super().forward(input)
        return found * torch.tensor(self.scalar_embed_scale, dtype=found.dtype, device=found.device)


_NARROW: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Linear: NarrowLinear,
    Conv1D: NarrowConv1D,
    torch.nn.Embedding: NarrowEmbedding,
}


def narrowed(model: Any) -> Any:
    """A model with weights in 16 bits, in place: what keeps them stays so, all other weights become fp32.

    Tied weights stay tied.
    """
    wide = {id(own) for module in model.modules() if not _narrow_class(module) for own in module.parameters(False)}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in wide and parameter.is_floating_point():
                parameter.data = _wide(parameter.data)
        module.__class__ = _narrow_class(module) or type(module)
    return model


def _narrow_class(module: torch.nn.Module) -> type[torch.nn.Module] | None:
    """What computes the module's function from narrow weights, if there is anything."""
    if isinstance(module, torch.nn.Embedding) and hasattr(module, "scalar_embed_scale"):  # as Gemma's classes are
        return NarrowScaledEmbedding
    return _NARROW.get(type(module))


def widened(model: Any) -> Any:
    """The model with all of its 16-bit weights in fp32, in place."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = _wide(parameter.data)
    return model


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
