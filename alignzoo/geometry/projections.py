"""The linear maps of a decoder's layers, found by structure rather than by model name.

A *neuron* is one input of a map and what it writes: in ``y = x Wᵀ`` a *column* of the weight, in GPT-2's ``Conv1D`` a
*row*. For the MLP's down-projection (Llama, Qwen, Mistral, Gemma ``down_proj``; GPT-NeoX ``dense_4h_to_h``; OPT
``fc2``) this is the value vector that one hidden unit writes into the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from alignzoo.contract.kinds import KINDS
from alignzoo.errors import ModelError, UsageError
from alignzoo.geometry.outputs import has_row_per_input

DOWN = "down_proj"
"""Stands for the MLP down-projection of every layer, whatever the model family calls it."""
MLP = "mlp"
"""Stands for all linear maps of every layer's MLP."""
_PEFT = "base_model.model."
_UNSELECTIVE = f"--geometry {str(KINDS['geometry'].default).rpartition(':')[2]}"
_MOVES_EXPERTS = "--geometry sam --geometry.select '*.experts.*'"

_Map = tuple[str, Any, tuple[int, int]]  # name inside its layer, module, (in, out)


@dataclass(frozen=True)
class Projection:
    """One linear map: ``module`` takes ``(..., inner)`` to ``(..., hidden)``.

    Attributes:
        layer: index of its decoder layer.
        name: its name in the model without an adapter.
        residual: whether it writes into the residual stream, so that ``hidden`` is the model's hidden size.
    """

    layer: int
    name: str
    module: Any
    inner: int
    hidden: int
    residual: bool = True

    @property
    def block(self) -> str:
        """The name of its parent module: the layer's MLP or attention; for OPT's MLP, the layer itself."""
        return self.name.rpartition(".")[0]

    @property
    def weight(self) -> torch.nn.Parameter:
        """The weight itself, underneath an adapter: ``(hidden, inner)``, in a ``Conv1D`` ``(inner, hidden)``."""
        weight: torch.nn.Parameter = self._base.weight
        return weight

    @property
    def bias(self) -> Any:
        """The bias ``(hidden,)``, or None."""
        return self._base.bias

    def value_vectors(self) -> torch.Tensor:
        """``(inner, hidden)``, what each input writes: a view of the weight, or the values of a 4-bit weight."""
        return self.by_neuron(dequantised(self.weight))

    def by_neuron(self, tensor: torch.Tensor) -> torch.Tensor:
        """``(inner, hidden)``: a view of a tensor of the weight's shape with one row per neuron."""
        return tensor if self.rows_are_neurons else tensor.T

    @property
    def rows_are_neurons(self) -> bool:
        """Whether the weight has one row per neuron, as in a ``Conv1D``, rather than one column."""
        return has_row_per_input(self._base)

    @property
    def _base(self) -> Any:
        return getattr(self.module, "base_layer", self.module)


def dequantised(weight: torch.Tensor) -> torch.Tensor:
    """A weight's values, detached: the weight itself, unless bitsandbytes stores it in 4 bits."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found]

    values: torch.Tensor = dequantize_4bit(weight.data, state)
    return values


def find_projections(model: Any, patterns: str = DOWN) -> list[Projection]:
    """The linear maps of the decoder layers that match one of the patterns, layer by layer.

    Args:
        model: a causal LM, with or without an adapter.
        patterns: comma-separated; ``down_proj`` stands for the MLP down-projections in every family, ``mlp`` for all
            maps of the MLP, anything else for the maps whose full name, name inside the layer (``self_attn.o_proj``)
            or last part matches it, with ``*`` for any text.

    Raises:
        ModelError: the model has no stack of decoder layers, or ``down_proj`` or ``mlp`` is used and it has no dense
            MLP.
        UsageError: a pattern matches no map.
    """
    words = _words(patterns)
    if not words:
        raise UsageError("--geometry.projections is empty", hint=f"leave it out for {DOWN}")
    down = find_down_projections(model) if names_mlp(patterns) else []
    found = {projection.name: projection for projection in down} if DOWN in words else {}
    everything = linear_maps(model) if set(words) != {DOWN} else []
    for word in words:
        if word == DOWN:
            continue
        blocks = {projection.block for projection in down} if word == MLP else ()
        matching = [projection for projection in everything if projection.block in blocks or _named(projection, word)]
        if not matching:
            local = sorted({projection.name.rpartition(".")[2] for projection in everything})
            raise UsageError(
                f"--geometry.projections: no linear map of a decoder layer is called {word!r}",
                hint=f"this model has {', '.join(local)}; * matches any text",
            )
        found |= {projection.name: projection for projection in matching}
    order = [projection.name for projection in everything] or list(found)
    return sorted(found.values(), key=lambda projection: order.index(projection.name))


def names_mlp(patterns: str) -> bool:
    """Whether ``down_proj`` or ``mlp`` is among the patterns."""
    return bool({DOWN, MLP} & set(_words(patterns)))


def _words(patterns: str) -> list[str]:
    return [word.strip() for word in patterns.split(",") if word.strip()]


def find_down_projections(model: Any) -> list[Projection]:
    """The MLP down-projection of every decoder layer, in order.

    In each layer, it is the last linear map (in registration order, where attention comes first) from a different inner
    size to the hidden size that has a sibling map from the hidden size to that inner size. In a mixture of experts this
    is the shared expert's; layers with only routed experts have none.

    Raises:
        ModelError: the model has no such layers.
    """
    hidden = _hidden_size(model)
    prefix, layers = _decoder_layers(model)
    found, experts = [], routed_experts(model)
    for index, layer in enumerate(layers):
        maps = _outermost(layer)
        down = [
            (name, module, shape)
            for name, module, shape in maps
            if shape[1] == hidden and shape[0] != hidden and _is_fed(name, shape[0], hidden, maps)
        ]
        if down:
            name, module, (inner, _) = down[-1]
            found.append(Projection(index, f"{prefix}.{index}.{name}", module, inner, hidden))
        elif not any(name.startswith(f"{prefix}.{index}.") for name in experts):
            raise ModelError(
                f"{type(model).__name__}: no MLP down projection in {prefix}.{index}",
                hint="selective geometry supports dense decoders (Llama, Qwen, Mistral, Gemma, GPT-NeoX, GPT-2, OPT); "
                f"use {_UNSELECTIVE} for this model",
            )
    if not found:
        tensor = next(iter(experts))
        raise ModelError(
            f"{type(model).__name__}: all MLP neurons belong to routed experts, which share tensors ({tensor}) and "
            "are not linear modules",
            hint=f"{_MOVES_EXPERTS} perturbs whole tensors",
        )
    return found


def routed_experts(model: Any) -> dict[str, int]:
    """The number of neurons in each layer's routed experts that share one tensor, by the tensor's name.

    Such a tensor is ``(experts, hidden, inner)`` or ``(experts, inner, hidden)``; the smallest in its layer counts,
    because an input projection may include a gate.
    """
    hidden = _hidden_size(model)
    prefix, layers = _decoder_layers(model)
    found = {}
    for index, layer in enumerate(layers):
        tensors = [(n, w) for n, w in layer.named_parameters() if w.dim() == 3 and hidden in w.shape[1:]]
        if tensors:
            size = min(weight.numel() for _, weight in tensors)
            name = [name for name, weight in tensors if weight.numel() == size][-1]
            found[f"{prefix}.{index}.{name}"] = size // hidden
    return found


def out_of_reach(model: Any) -> str | None:
    """What to tell users about a mixture of experts' neurons that cannot be selected; None for other models."""
    routed = routed_experts(model)
    if not routed:
        return None
    within = sum(projection.inner for projection in find_down_projections(model))
    every = within + sum(routed.values())
    return (
        f"{within:,} of {every:,} MLP neurons ({within / every:.0%}) are inputs of linear maps and can be "
        f"selected; the others belong to routed experts, which share tensors ({next(iter(routed))}): "
        f"{_MOVES_EXPERTS} perturbs them"
    )


def linear_maps(model: Any) -> list[Projection]:
    """All linear maps of the decoder layers, in registration order.

    Among a block's maps (attention, MLP) with an output of hidden size, the last one writes into the residual stream:
    in attention, that is the output projection rather than a query projection of the same shape.

    Raises:
        ModelError: the model has no stack of decoder layers.
    """
    hidden = _hidden_size(model)
    prefix, layers = _decoder_layers(model)
    found = []
    for index, layer in enumerate(layers):
        maps = _outermost(layer)
        last = {name.rpartition(".")[0]: name for name, _, (_, out) in maps if out == hidden}
        for name, module, (inner, out) in maps:
            residual = last.get(name.rpartition(".")[0]) == name
            found.append(Projection(index, f"{prefix}.{index}.{name}", module, inner, out, residual))
    return found


def refuse_outside_residual(projections: Sequence[Projection], select: str) -> None:
    """Refuse maps outside the residual stream: only vectors written there can be compared with a probe's direction.

    Raises:
        UsageError: one of the maps writes elsewhere.
    """
    elsewhere = [projection for projection in projections if not projection.residual]
    if elsewhere:
        raise UsageError(
            f"--geometry.select {select} compares neurons with the probe's direction in the residual stream, but "
            f"{elsewhere[0].name} does not write there",
            hint="use maps that do (down_proj, o_proj), or --geometry.select random, all, or a saved selection",
        )


def _named(projection: Projection, pattern: str) -> bool:
    name = projection.name
    ends = [name, *(name[i + 1 :] for i, letter in enumerate(name) if letter == ".")]
    return any(fnmatchcase(end, pattern) for end in ends)


def _hidden_size(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)


def _decoder_layers(model: Any) -> tuple[str, torch.nn.ModuleList]:
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count and len({type(m) for m in module}) == 1:
            return name.removeprefix(_PEFT), module
    raise ModelError(
        f"{type(model).__name__}: no stack of {count} equal decoder layers found",
        hint=f"use {_UNSELECTIVE} for this model",
    )


def _outermost(layer: torch.nn.Module) -> list[_Map]:
    """The layer's linear maps; an adapter and the map it wraps count as one."""
    maps = [(name, module, shape) for name, module in layer.named_modules() if (shape := _linear_shape(module))]
    return [m for m in maps if not any(m[0].startswith(f"{other[0]}.") for other in maps)]


def _linear_shape(module: Any) -> tuple[int, int] | None:
    """``(in, out)`` of a linear map, whatever class implements it."""
    inside, outside = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inside, int) and isinstance(outside, int):
        return inside, outside
    if has_row_per_input(module):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return None


def _is_fed(name: str, inner: int, hidden: int, maps: list[_Map]) -> bool:
    """Whether a sibling map projects the hidden state to the inner size, alone or fused with a gate (Phi-3)."""
    parent = name.rpartition(".")[0]
    siblings = [shape for other, _, shape in maps if other != name and other.rpartition(".")[0] == parent]
    return (hidden, inner) in siblings or siblings == [(hidden, 2 * inner)]
