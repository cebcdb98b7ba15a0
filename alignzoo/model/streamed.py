"""A policy whose weights go from safetensors files straight into the shards of the ranks: none ever holds all of them.

The model is built on the meta device, given its adapter, sharded, and then every rank reads its own rows of a weight.
That needs files in which every weight is one tensor under a name that transformers only renames; any other model is
loaded whole on every rank and sharded afterwards, with the same result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from alignzoo.distributed.launch import reshards_after_forward
from alignzoo.distributed.sharding import Owners, fill, owners_of, resharding, shard
from alignzoo.model.explained import explained, quiet
from alignzoo.model.load import as_policy, base_dtype, check_causal, load_config
from alignzoo.model.narrow import narrowed
from alignzoo.model.source import ModelSource, file_of
from alignzoo.plan.settings import Settings

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_READABLE = ("F64", "F32", "F16", "BF16")


class MustBeWhole(Exception):
    """Why a model cannot be read into shards; the message completes "loaded whole on every rank: …"."""


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights, and where these are.

    Attributes:
        model: on the meta device, but for its buffers.
        owners: the modules of each weight, by its name.
        places: file and name in it of each weight.
    """

    model: Any
    owners: Mapping[str, Owners]
    places: Mapping[str, tuple[Path, str]]


def skeleton_of(source: ModelSource, settings: Settings) -> Skeleton:
    """What :func:`sharded_policy` fills; nothing is exchanged between ranks.

    Raises:
        MustBeWhole: the model's files cannot be read weight by weight.
        ModelError: not a causal LM, or unreadable files.
    """
    if source.gguf:
        raise MustBeWhole("it is a .gguf file")
    if settings.trust_remote_code:
        raise MustBeWhole("its code is its own (--trust-remote-code)")
    config = load_config(source, settings)
    if getattr(config, "quantization_config", None) is not None:
        raise MustBeWhole("its weights are quantised")
    files = _files_of(source)
    with explained(source.path, "model"), quiet():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=base_dtype(settings))
            if settings.weights == "bf16":
                narrowed(model)
        _read_generation_config(model, source.path)
        owners, places = owners_of(model), _places(model, files)
        _fill_buffers(model, places)
    lacking = sorted(set(owners) - places.keys())
    if lacking:
        raise MustBeWhole(f"{lacking[0]} is not in its files under any of its names")
    return Skeleton(model.eval(), owners, {name: places[name] for name in owners})


def sharded_policy(skeleton: Skeleton, source: ModelSource, settings: Settings, device: torch.device) -> Any:
    """The policy, as :func:`~alignzoo.model.load.load_policy` gives it, sharded over the ranks, which all call this.

    Raises:
        ModelError, UsageError: as ``load_policy``.
    """
    owners = skeleton.owners
    _put(owners, lambda weight: torch.zeros((), dtype=weight.dtype).expand(weight.shape))  # peft takes it for real
    policy = as_policy(skeleton.model, source, settings)
    _put(owners, lambda weight: torch.empty(weight.shape, dtype=weight.dtype, device="meta"))
    offload, narrow = settings.offload == "weights", torch.bfloat16 if settings.precision == "bf16" else None
    again = reshards_after_forward()
    sharded = shard(policy, device=device.type, reshard_after_forward=again, offload=offload, narrow=narrow)
    with explained(source.path, "model"), ExitStack() as stack, torch.no_grad():
        opened: dict[Path, Any] = {}
        for name, (path, stored) in skeleton.places.items():
            if path not in opened:
                opened[path] = stack.enter_context(safe_open(path, "pt"))
            values = opened[path].get_slice(stored)
            fill(owners[name], values.__getitem__, torch.device("cpu") if offload else device)
    with torch.no_grad(), torch.autocast(device.type, narrow, enabled=narrow is not None):
        resharding(check_causal)(sharded, source.path, device)
    return sharded


def _put(owners: Mapping[str, Owners], value: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Exchange all weights; tied ones stay tied."""
    for places in owners.values():
        module, leaf = places[0]
        weight = module.get_parameter(leaf)
        put = torch.nn.Parameter(value(weight), requires_grad=weight.requires_grad)
        for module, leaf in places:
            module.register_parameter(leaf, put)


def _files_of(source: ModelSource) -> dict[str, Path]:
    """The file of every tensor of a model, by the tensor's stored name.

    Raises:
        MustBeWhole: it has no such files.
    """
    whole, index = file_of(source.path, _WEIGHTS), None
    if whole is None:
        index = file_of(source.path, _INDEX)
    paths = [whole] if whole is not None else []
    if index is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            found = [file_of(source.path, name) for name in names if Path(name).name == name]
            paths = [path for path in found if path is not None] if None not in found else []
    if not paths:
        raise MustBeWhole("its weights are not in safetensors files of its own")
    files: dict[str, Path] = {}
    for path in paths:
        with explained(source.path, "model"), safe_open(path, "pt") as file:
            files |= dict.fromkeys(file.keys(), path)
    return files


def _places(model: Any, files: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Where each weight and persistent buffer of the model is stored; a tied weight under the first of its names.

    Raises:
        MustBeWhole: a tensor is converted while it loads, is stored twice, or has another shape or kind of number.
    """
    state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    found: dict[str, tuple[Path, str]] = {}
    for stored, path in sorted(files.items()):
        name, pattern = rename_source_key(stored, renamings, converters, model.base_model_prefix, state)
        if name not in state and stored in state:
            name, pattern = stored, None
        if pattern is not None:
            raise MustBeWhole(f"{stored} is converted while it loads")
        if name not in state:
            continue  # as transformers: what the model does not have is left where it is
        if names[name] in found:
            raise MustBeWhole(f"{name} is stored more than once")
        found[names[name]] = path, stored
        _check_alike(state[name], path, stored)
    model._weight_conversions = [entry for entry in conversions if entry.was_used()]  # to save under the stored names
    return found


def _check_alike(tensor: torch.Tensor, path: Path, stored: str) -> None:
    with safe_open(path, "pt") as file:
        values = file.get_slice(stored)
        if values.get_shape() != list(tensor.shape):
            raise MustBeWhole(f"{stored} has another shape than the model's")
        if tensor.is_floating_point() and values.get_dtype() not in _READABLE:
            raise MustBeWhole(f"{stored} is stored as {values.get_dtype()}")


def _fill_buffers(model: Any, places: Mapping[str, tuple[Path, str]]) -> None:
    """Read the buffers that are stored, and let the model compute the others, as transformers does.

    Raises:
        MustBeWhole: a stored one is missing, or the model does not compute the others.
    """
    for name, (module, leaf, buffer) in _buffers_of(model).items():
        if name in places:
            path, stored = places[name]
            with safe_open(path, "pt") as file:
                module._buffers[leaf] = file.get_tensor(stored).to(buffer.dtype)
        elif leaf not in module._non_persistent_buffers_set:
            raise MustBeWhole(f"the buffer {name} is not in its files")
        else:
            unset = float("nan") if buffer.is_floating_point() else 0
            module._buffers[leaf] = torch.full(buffer.shape, unset, dtype=buffer.dtype)
    for weight in model.state_dict(keep_vars=True).values():
        weight._is_hf_initialized = True  # which leaves to initialize_weights() what no file holds
    model.initialize_weights()
    for name, (_, _, buffer) in _buffers_of(model).items():
        if buffer.is_meta or bool(buffer.isnan().any()):
            raise MustBeWhole(f"the model does not compute its buffer {name}")
    if any(isinstance(value, torch.Tensor) and value.is_meta for m in model.modules() for value in vars(m).values()):
        raise MustBeWhole("the model holds tensors that are neither weights nor buffers")


def _buffers_of(model: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, str, torch.Tensor]]:
    """The buffers, by name, with the module that holds each."""

    def found() -> Iterator[tuple[str, tuple[torch.nn.Module, str, torch.Tensor]]]:
        for prefix, module in model.named_modules():
            for leaf, buffer in module.named_buffers(recurse=False):
                yield f"{prefix}.{leaf}" if prefix else leaf, (module, leaf, buffer)

    return dict(found())


def _read_generation_config(model: Any, path: str) -> None:
    """The model's own settings for generation, which are saved with it."""
    if not model.can_generate():
        return
    try:
        model.generation_config = GenerationConfig.from_pretrained(path)
    except OSError:  # it has none: the settings in its config count
        options: dict[str, Any] = {"config_file_name": "config.json", "_from_model_config": True}
        model.generation_config = GenerationConfig.from_pretrained(path, **options)
