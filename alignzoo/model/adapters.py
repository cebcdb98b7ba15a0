"""LoRA adapters, new and already trained, and the 4-bit base under one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from alignzoo.errors import ModelError, UsageError
from alignzoo.model.base import REFERENCE_ADAPTER
from alignzoo.model.explained import SAFETENSORS_ONLY, explained, quiet
from alignzoo.model.source import ModelSource, file_of
from alignzoo.plan.settings import Settings

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def how_to_load(source: ModelSource, adapter: Path) -> str:
    """How to load an adapter on a .gguf file with transformers and peft, which cannot find such a base by path."""
    file = Path(source.base)
    options = f"{str(file.parent)!r}, gguf_file={file.name!r}"
    if hasattr(transformers, "GgufConfig"):
        options += ", quantization_config=transformers.GgufConfig(dequantize=True)"
    return (
        "the adapter's base is a .gguf file; alignzoo finds it by itself, with transformers and peft load it as "
        f"base = transformers.AutoModelForCausalLM.from_pretrained({options}); "
        f"model = peft.PeftModel.from_pretrained(base, {str(adapter.absolute())!r})"
    )


def check_quantisation(settings: Settings, source: ModelSource) -> None:
    """Check the requirements of a 4-bit base.

    Raises:
        UsageError: no adapter to train, no CUDA device, no bitsandbytes, or a .gguf base.
    """
    if settings.quantize == "none":
        return
    said = f"--quantize {settings.quantize}"
    if not settings.lora_r and source.adapter is None:
        raise UsageError(f"{said} needs an adapter to train: 4-bit weights cannot be trained", hint="add --lora.r 16")
    if source.gguf:
        raise UsageError(
            f"{said} does not work with a .gguf model", hint="give the folder or hub id it was converted from"
        )
    if not torch.cuda.is_available():
        raise UsageError(f"{said} needs a CUDA device, and there is none", hint="leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"{said} needs the bitsandbytes package", hint="pip install 'alignzoo[bitsandbytes]'")


def four_bits(settings: Settings) -> Any:
    """A frozen base as in QLoRA: NF4 with double quantisation, computed in the run's dtype."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def with_new_adapter(model: PreTrainedModel, settings: Settings) -> Any:
    """A LoRA adapter on every linear map of the model, its A drawn by the run's seed."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_r, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(settings.seed)  # the adapter's A is random
    with quiet():
        return get_peft_model(model, config)


def with_trained_adapter(model: PreTrainedModel, adapter: str, settings: Settings) -> Any:
    """The adapter continues training; a frozen copy of it is the reference."""
    from peft import PeftConfig, PeftModel

    with explained(adapter, "adapter"):
        config = PeftConfig.from_pretrained(adapter)
    _check_lora_settings(config, adapter, settings)
    if file_of(adapter, _ADAPTER_WEIGHTS) is None:
        raise ModelError(
            f"cannot load the adapter of {adapter}: it has no {_ADAPTER_WEIGHTS}",
            hint=SAFETENSORS_ONLY.format("peft"),
        )
    with explained(adapter, "adapter"), quiet():
        policy = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        policy.load_adapter(adapter, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    policy.set_adapter("default")
    return policy


def _check_lora_settings(config: Any, adapter: str, settings: Settings) -> None:
    """An adapter that continues training keeps its rank and scale."""
    rank, alpha = getattr(config, "r", None), getattr(config, "lora_alpha", None)
    if settings.lora_r and settings.lora_r != rank:
        raise UsageError(
            f"--lora.r {settings.lora_r} does not match the adapter in {adapter}, which has rank {rank}",
            hint="leave --lora.r out to continue training it, or merge it into its base first",
        )
    if "lora_alpha" in settings.model_fields_set and settings.lora_alpha != alpha:
        raise UsageError(
            f"--lora.alpha {settings.lora_alpha:g} does not match the adapter in {adapter}, which has alpha {alpha}",
            hint="leave --lora.alpha out to continue training it, or merge it into its base first",
        )
