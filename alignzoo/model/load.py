"""Policies and tokenizers from a hub id, a local folder, a PEFT adapter, a ``.gguf`` file or a plugin."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.errors import ModelError, UsageError
from alignzoo.model.adapters import check_quantisation, four_bits, with_new_adapter, with_trained_adapter
from alignzoo.model.base import without_adapter
from alignzoo.model.explained import explained, quiet
from alignzoo.model.modes import checkpoint_in_eval_mode, disable_dropout
from alignzoo.model.narrow import narrowed
from alignzoo.model.source import ModelSource, file_of
from alignzoo.plan.settings import Settings


def load_config(source: ModelSource, settings: Settings) -> Any:
    """The model's config, without its weights."""
    with explained(source.path, "config"), quiet():
        return AutoConfig.from_pretrained(source.path, **_where(source, settings))


def load_tokenizer(source: ModelSource, settings: Settings) -> PreTrainedTokenizerBase:
    """The model's tokenizer; ``pad`` falls back to ``eos`` (masks come from lengths, never from token ids).

    If an adapter was saved with its own tokenizer, that one: the adapter was trained with it.
    """
    path, options = source.path, _where(source, settings)
    if source.adapter is not None and file_of(source.adapter, "tokenizer_config.json") is not None:
        config = load_config(source, settings)  # adapters have none
        path, options = source.adapter, {"trust_remote_code": settings.trust_remote_code, "config": config}
    with explained(path, "tokenizer"), quiet(), _without_others(path, options.get("gguf_file")) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    tokenizer.name_or_path = path
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {path} has no end-of-sequence token", hint="set eos_token in it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _without_others(path: str, gguf: str | None) -> Iterator[str]:
    """A folder with a ``.gguf`` file alone: transformers would take a ``tokenizer.json`` beside it for its tokenizer,
    without the special tokens."""
    if gguf is None or not any(Path(path).glob("tokenizer*.json")):
        yield path
        return
    with TemporaryDirectory() as folder:
        (Path(folder) / gguf).symlink_to((Path(path) / gguf).absolute())
        yield folder


def load_policy(source: ModelSource, settings: Settings) -> PreTrainedModel:
    """The policy with the trainable weights marked: all of them, a new LoRA adapter, or the given one. These are fp32,
    frozen ones have the dtype of ``--weights``.

    Raises:
        ModelError: not a causal LM, unreadable weights, or no such repository.
        UsageError: ``--lora.r`` or ``--lora.alpha`` differ from those of the trained adapter, or a setting needs a GPU.
    """
    check_quantisation(settings, source)
    _check_offloading(settings)
    return as_policy(load_base(source, settings), source, settings)


def as_policy(model: PreTrainedModel, source: ModelSource, settings: Settings) -> PreTrainedModel:
    """Prepare a model in memory for training, as :func:`load_policy` does."""
    policy: Any = model
    if source.adapter is not None:
        policy = with_trained_adapter(policy, source.adapter, settings)
    elif settings.lora_r:
        policy = with_new_adapter(policy, settings)
    for weight in policy.parameters():
        if weight.requires_grad and weight.dtype == torch.bfloat16:  # copies of frozen ones that an adapter trains
            weight.data = weight.data.float()
    for config in getattr(policy, "peft_config", {}).values():
        config.base_model_name_or_path = source.base
    if not settings.dropout:
        disable_dropout(policy)  # after the adapter, which may have dropout of its own
    if settings.activation_checkpointing:
        _checkpoint_activations(policy, source)
        if not settings.dropout:
            checkpoint_in_eval_mode(policy)
    return policy


def _check_offloading(settings: Settings) -> None:
    if settings.activation_offloading and not torch.cuda.is_available():
        raise UsageError(
            "--activation-offloading has no effect here: there is no GPU whose memory it could save",
            hint="leave it out; --activation-checkpointing and a smaller --micro-batch-size save memory on a CPU, too",
        )


def _checkpoint_activations(policy: Any, source: ModelSource) -> None:
    """Make layers keep only their inputs; takes effect in training mode."""
    base = without_adapter(policy)
    if not base.supports_gradient_checkpointing:
        raise UsageError(
            f"--activation-checkpointing: {source.path} does not support recomputing its layers",
            hint="leave it out; a smaller --micro-batch-size or --tokens-per-micro-batch saves memory too",
        )
    with quiet():
        base.gradient_checkpointing_enable({"use_reentrant": False})


def load_base(source: ModelSource, settings: Settings) -> PreTrainedModel:
    """The model without an adapter: complete, causal, in fp32 or, with ``--weights bf16``, as
    :func:`~alignzoo.model.narrow.narrowed` leaves it."""
    options = _where(source, settings)
    if not source.gguf:
        options |= safetensors_only()
    elif hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)  # packed blocks cannot be trained
    if settings.quantize == "4bit":
        options |= {"quantization_config": four_bits(settings), "device_map": {"": torch.cuda.current_device()}}
    with explained(source.path, "model"), quiet():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=base_dtype(settings), output_loading_info=True, **options
        )
    _check_whole(model, loaded["missing_keys"], source.path)
    if settings.weights == "bf16":
        narrowed(model)
    check_causal(model, source.path, model.device)
    if source.gguf:  # the weights are dequantised, but save_pretrained refuses models that look quantised
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def base_dtype(settings: Settings) -> torch.dtype:
    """The dtype in which the weights of a base are loaded."""
    return torch.bfloat16 if settings.weights == "bf16" else torch.float32


def safetensors_only() -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that keep out pickled weights."""
    # Without it, transformers asks the hub to convert a repository that has other weights only.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    return {"use_safetensors": True}


def check_vocabulary(policy: PreTrainedModel, highest: int, name: str) -> None:
    """Refuse token ids that the model has no embeddings for.

    Raises:
        ModelError: ``highest``, the largest id in use, is one.
    """
    embeddings = policy.get_input_embeddings().weight.shape[0]
    if highest >= embeddings:
        raise ModelError(
            f"the tokenizer of {name} gives ids up to {highest}, but the model has {embeddings} embeddings",
            hint="use the model's own tokenizer, or save the model with resized embeddings",
        )


def _check_whole(model: PreTrainedModel, missing: Collection[str], path: str) -> None:
    """Refuse missing weights: transformers initialises them at random, with only a warning."""
    if missing:
        names = sorted(missing)
        raise ModelError(
            f"{path} is not a complete causal language model: it lacks {len(names)} weights of {type(model).__name__}, "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}",
            hint="alignzoo trains models of AutoModelForCausalLM, with their language-modelling head",
        )


@torch.no_grad()
def check_causal(model: Any, path: str, device: torch.device) -> None:
    """Refuse encoders: they load as AutoModelForCausalLM too, but see the tokens they should predict.

    Raises:
        ModelError: the model is one.
    """
    rows = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=device)  # in one pass, which reads the weights once
    first, other_end = model(input_ids=rows).logits[:, :3]
    if not torch.allclose(first, other_end, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ModelError(
            f"{path} is not a causal language model: its predictions depend on later tokens",
            hint="alignzoo trains decoders; an encoder cannot be aligned this way",
        )


def _where(source: ModelSource, settings: Settings) -> dict[str, Any]:
    where: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if source.gguf:
        where["gguf_file"] = source.gguf
    return where
