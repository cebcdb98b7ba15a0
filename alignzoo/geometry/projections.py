"""The MLP down projections of a decoder, found by structure and not by the model's name.

A *neuron* is one value vector: what one unit of the MLP's inner layer writes into the residual stream. In a linear
layer ``y = x Wᵀ`` (Llama, Qwen, Mistral, Gemma ``down_proj``; GPT-NeoX ``dense_4h_to_h``; OPT ``fc2``) that is a
*column* of the weight, in GPT-2's ``Conv1D`` a *row*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from alignzoo.errors import ModelError


@dataclass(frozen=True)
class Projection:
    """One layer's down projection: ``module`` takes ``(..., inner)`` to ``(..., hidden)``."""

    layer: int
    name: str
    module: Any
    inner: int
    hidden: int

    def value_vectors(self) -> torch.Tensor:
        """``(inner, hidden)``, the neurons' value vectors, a view of the weight."""
        weight = getattr(self.module, "base_layer", self.module).weight.detach()
        return weight if weight.shape == (self.inner, self.hidden) else weight.T


def find_down_projections(model: Any) -> list[Projection]:
    """The down projection of every decoder layer, in order.

    In each layer it is the last linear map (by registration: attention comes first) from a wider inner layer onto the
    hidden size, where a map beside it leads from the hidden size to that inner layer.

    Raises:
        ModelError: the model has no such stack of layers.
    """
    hidden = model.config.get_text_config().hidden_size
    prefix, layers = _decoder_layers(model)
    found = []
    for index, layer in enumerate(layers):
        maps = [(name, module, shape) for name, module in layer.named_modules() if (shape := _linear_shape(module))]
        outermost = [m for m in maps if not any(m[0].startswith(f"{other[0]}.") for other in maps)]
        down = [
            (name, module, shape)
            for name, module, shape in outermost
            if shape[1] == hidden and shape[0] != hidden and _is_fed(name, shape[0], hidden, outermost)
        ]
        if not down:
            raise ModelError(
                f"{type(model).__name__}: no MLP down projection in {prefix}.{index}",
                hint="selective geometry knows dense decoders (Llama, Qwen, Mistral, Gemma, GPT-NeoX, GPT-2, OPT); "
                "use --geometry plain for this model",
            )
        name, module, (inner, _) = down[-1]
        found.append(Projection(index, f"{prefix}.{index}.{name}", module, inner, hidden))
    return found


def _decoder_layers(model: Any) -> tuple[str, torch.nn.ModuleList]:
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count and len({type(m) for m in module}) == 1:
            return name, module
    raise ModelError(
        f"{type(model).__name__}: no stack of {count} equal decoder layers found",
        hint="use --geometry plain for this model",
    )


def _linear_shape(module: Any) -> tuple[int, int] | None:
    """``(in, out)`` of a linear map, whatever class implements it."""
    inside, outside = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inside, int) and isinstance(outside, int):
        return inside, outside
    if type(module).__name__ == "Conv1D":  # GPT-2's: weight is (in, out)
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return None


def _is_fed(name: str, inner: int, hidden: int, maps: list[tuple[str, Any, tuple[int, int]]]) -> bool:
    """Whether a sibling map takes the hidden state to the inner layer, alone or fused with its gate (Phi-3)."""
    parent = name.rpartition(".")[0]
    siblings = [shape for other, _, shape in maps if other != name and other.rpartition(".")[0] == parent]
    return (hidden, inner) in siblings or siblings == [(hidden, 2 * inner)]
