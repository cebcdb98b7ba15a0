"""A model's shapes from its config, built on the meta device, so that no weights are read or stored."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignzoo.base.files import local_path
from alignzoo.errors import ModelError
from alignzoo.geometry.outputs import has_row_per_input


def read_config(name: str, *, trust_remote_code: bool = False) -> Any:
    """The transformers config of a hub id, a folder, a ``config.json``, a ``.gguf`` file or a plugin.

    Raises:
        ModelError: no such model, or not the config of a causal language model.
    """
    from transformers import AutoConfig

    from alignzoo.model.explained import explained, quiet
    from alignzoo.model.source import find_model

    path = local_path(name)
    if path.is_file() and path.suffix == ".json":
        return _config_file(path, trust_remote_code)
    source = find_model(name)
    if source.adapter is not None:
        raise ModelError(
            f"{name} is an adapter, but a plan needs its base model",
            hint=f"give --model {source.path} and the adapter's rank as --lora.r",
        )
    with explained(source.path, "config"), quiet():
        options: dict[str, Any] = {"gguf_file": source.gguf} if source.gguf else {}
        return AutoConfig.from_pretrained(source.path, trust_remote_code=trust_remote_code, **options)


def _config_file(path: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    from alignzoo.model.explained import explained, quiet

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="give the config.json of a model") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise ModelError(f"{path} is not a model config: it has no model_type", hint="give a model's config.json")
    with explained(str(path), "config"), quiet():
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)


@dataclass(frozen=True)
class Map:
    """A linear map of the decoder layers, ``inputs`` → ``outputs``, that occurs ``count`` times in the model.

    Attributes:
        share: of the tokens that go through each of them (1; for E experts with k active, k/E).
    """

    inputs: int
    outputs: int
    count: int
    share: float = 1.0

    @property
    def parameters(self) -> int:
        """Parameters of all of them."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True)
class Shapes:
    """Parameter counts and sizes of a causal language model.

    Attributes:
        total: parameters, tied ones counted once; made up of ``embedding``, ``head`` (0 if tied), ``experts``, the rest
            of the decoder ``layers``, and ``other``; ``active`` are those used per token.
        tied: whether the head is the embedding.
        maps: linear maps of the layers, identical ones together.
        depth: decoder layers.
        layer: parameters of the largest one.
        largest: elements of the largest single weight.
        attention: attention's width over all heads, summed over the layers (0 without attention).
    """

    total: int
    embedding: int
    head: int
    experts: int
    layers: int
    active: int
    tied: bool
    maps: tuple[Map, ...]
    depth: int
    layer: int
    largest: int
    hidden: int
    vocabulary: int
    attention: int

    @property
    def other(self) -> int:
        """Parameters of no other kind."""
        return self.total - self.embedding - self.head - self.experts - self.layers

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear maps except the head."""
        return sum(rank * (m.inputs + m.outputs) * m.count for m in self.maps)

    @property
    def linear(self) -> int:
        """Parameters of the layers' linear maps used per token."""
        return round(sum(m.parameters * m.share for m in self.maps))


def empty_model(config: Any, **options: Any) -> Any:
    """The causal language model of a config on the meta device, in fp32.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoModelForCausalLM

    from alignzoo.model.explained import explained, quiet

    name = config.name_or_path or config.model_type
    with explained(name, "architecture"), quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
    if not hasattr(model, "get_output_embeddings") or model.get_output_embeddings() is None:
        raise ModelError(f"{name} is not a causal language model: it has no head over a vocabulary")
    return model


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers: the longest module list that is not nested in another (experts)."""
    lists = [module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    nested = {id(inner) for outer in lists for entry in outer for inner in entry.modules()}
    outer = [one for one in lists if id(one) not in nested]
    return max(outer, key=len, default=nn.ModuleList())


def shapes_of(model: Any) -> Shapes:
    """The shapes of a model on the meta device."""
    config = model.config.get_text_config()
    layers, head = decoder_layers(model), model.get_output_embeddings()
    embedding = model.get_input_embeddings().weight
    tied = head.weight is embedding or bool(getattr(config, "tie_word_embeddings", False))
    share = _expert_share(config)
    experts = _experts(layers)
    expert_numbers = sum(p.numel() for p in experts.values())
    of_layers = sum(p.numel() for p in layers.parameters()) - expert_numbers
    biases = sum(p.numel() for p in head.parameters()) - head.weight.numel()
    own_head = biases if tied else head.weight.numel() + biases
    everything = {id(p): p for p in model.parameters() if not (tied and p is head.weight)}
    everything[id(embedding)] = embedding
    total = sum(p.numel() for p in everything.values())
    return Shapes(
        total=total,
        embedding=embedding.numel(),
        head=own_head,
        experts=expert_numbers,
        layers=of_layers,
        active=total - round(expert_numbers * (1 - share)),
        tied=tied,
        maps=_maps(layers, set(experts), share),
        depth=len(layers),
        layer=max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0),
        largest=max(p.numel() for p in everything.values()),
        hidden=embedding.shape[1],
        vocabulary=embedding.shape[0],
        attention=_attention(config, len(layers)),
    )


def _experts(layers: nn.ModuleList) -> dict[int, nn.Parameter]:
    """Expert weights by id: those of modules called ``experts``."""
    return {
        id(parameter): parameter
        for name, module in layers.named_modules()
        if name.rpartition(".")[2] == "experts"
        for parameter in module.parameters()
    }


def _expert_share(config: Any) -> float:
    """The share of a layer's experts used per token; 1 if the config does not say."""
    counts = [getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts")]
    number = next((count for count in counts if count), None)
    chosen = getattr(config, "num_experts_per_tok", None)
    return min(1.0, chosen / number) if number and chosen else 1.0


def _maps(layers: nn.ModuleList, experts: set[int], share: float) -> tuple[Map, ...]:
    found: Counter[tuple[int, int, float]] = Counter()
    for module in layers.modules():
        for parameter in module.parameters(recurse=False):
            part = share if id(parameter) in experts else 1.0
            if parameter.dim() == 3 and id(parameter) in experts:  # (experts, outputs, inputs)
                found[parameter.shape[2], parameter.shape[1], part] += parameter.shape[0]
            elif parameter.dim() == 2 and has_row_per_input(module):
                found[parameter.shape[0], parameter.shape[1], part] += 1
            elif parameter.dim() == 2:
                found[parameter.shape[1], parameter.shape[0], part] += 1
    return tuple(Map(inputs, outputs, count, part) for (inputs, outputs, part), count in found.items())


def _attention(config: Any, depth: int) -> int:
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(heads * width * depth)
