"""Policies and tokenizers from a hub id, a local folder, a PEFT adapter, a ``.gguf`` file or a plugin."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from alignzoo.base.files import local_path
from alignzoo.errors import ModelError, UsageError
from alignzoo.model.base import REFERENCE_ADAPTER, without_adapter
from alignzoo.model.explained import SAFETENSORS_ONLY, explained, quiet
from alignzoo.model.modes import checkpoint_in_eval_mode, disable_dropout
from alignzoo.model.named import place_of
from alignzoo.plan.planfile import PLAN_FILE
from alignzoo.plan.settings import Settings

_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights and tokenizer come from.

    Attributes:
        path: what ``from_pretrained`` gets: a hub id or a folder.
        gguf: the file inside ``path``, for a ``.gguf`` model.
        adapter: folder or hub id of an already trained PEFT adapter on top of ``path``.
    """

    path: str
    gguf: str | None = None
    adapter: str | None = None

    @property
    def base(self) -> str:
        """What an adapter's config names as its base: found from any working directory, where it is a file or folder
        here."""
        path = local_path(self.path)
        if not path.exists():
            return self.path
        return str((path / self.gguf if self.gguf else path).absolute())


def find_model(name: str) -> ModelSource:
    """Resolve ``--model`` without loading weights.

    Raises:
        ModelError: a path that does not exist or holds no model; a gguf file without the ``gguf`` package; an adapter
            without a base that can be trained on.
    """
    said, name = f"--model {name}", place_of(name)
    config = _adapter_config(name)
    if config is None:
        return full_model(name, said)
    base = _base_of(config)
    if _adapter_config(base) is not None:
        raise ModelError(
            f"{config}: the base model {base} is itself an adapter",
            hint="merge that one into its own base first (merge_and_unload), and name the merged model as the base",
        )
    inner = full_model(base, f"{config}: base model {base}")
    return ModelSource(inner.path, inner.gguf, adapter=str(config.parent) if local_path(name).exists() else name)


def _adapter_config(name: str) -> Path | None:
    return _file_of(name, _ADAPTER_CONFIG)


def _file_of(name: str, file: str) -> Path | None:
    """``file`` of a folder or (fetched) of a hub repository; None where there is none."""
    path = local_path(name)
    if path.exists() or not is_hub_id(name):
        return path / file if (path / file).is_file() else None
    with contextlib.suppress(Exception), quiet():  # whatever is wrong with the repository, its load says it better
        found = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return Path(found) if found else None
    return None


def is_hub_id(name: str) -> bool:
    """Whether a name that is not a file or folder here may be that of a hub repository."""
    return not (name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf"))


def _base_of(config: Path) -> str:
    """The base model that an adapter's config names."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read: {error}", hint="save the adapter again with peft") from error
    if not isinstance(content, dict):
        raise ModelError(f"{config} is not a JSON object", hint="save the adapter again with peft")
    base = content.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{config} names no base model", hint="merge the adapter into its base first")
    return base


def full_model(name: str, said: str, *, gguf: bool = True) -> ModelSource:
    """Resolve a model that is no adapter; ``said`` is how a message calls it, ``gguf`` whether hints offer such a file.

    Raises:
        ModelError: as :func:`find_model`.
    """
    name = place_of(name)
    path = local_path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _no_model_in(path, said)
        return ModelSource(str(path))
    if path.suffix == ".gguf":
        return _gguf(path, said)
    if path.exists():
        raise ModelError(
            f"{said} is a file", hint=f"give a folder saved by transformers{', or a .gguf file' if gguf else ''}"
        )
    if not is_hub_id(name):
        raise ModelError(
            f"{said}: no such folder", hint=f"give a local folder{', a .gguf file' if gguf else ''} or a hub id"
        )
    return ModelSource(name)


def _no_model_in(folder: Path, said: str) -> ModelError:
    """The error for a folder that holds no model; for a run's folder it says where the model is."""
    if not (folder / PLAN_FILE).is_file():
        return ModelError(f"{said}: no config.json in that folder", hint="give a folder written by save_pretrained")
    if not (folder / "model").is_dir():
        return ModelError(
            f"{said} is the folder of a run that has not saved its model yet",
            hint=f"finish it first: alignzoo run --resume {folder}",
        )
    return ModelError(f"{said} is the folder of a run", hint=f"did you mean its model, {folder / 'model'}?")


def _gguf(path: Path, said: str) -> ModelSource:
    if not path.is_file():
        raise ModelError(f"{said}: no such file", hint="give the path of a .gguf file that exists")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(
                f"{said} is not a GGUF file: it does not begin with GGUF",
                hint="download it again (a page or a pointer of Git LFS may be in its place), or give a folder",
            )
    with contextlib.suppress(ImportError):
        import gguf  # noqa: F401

        return ModelSource(str(path.parent), gguf=path.name)
    raise ModelError("a .gguf model needs the gguf package", hint="pip install 'alignzoo[gguf]'")


def load_config(source: ModelSource, settings: Settings) -> Any:
    """The model's config, without its weights."""
    with explained(source.path, "config"), quiet():
        return AutoConfig.from_pretrained(source.path, **_where(source, settings))


def load_tokenizer(source: ModelSource, settings: Settings) -> PreTrainedTokenizerBase:
    """The model's tokenizer; ``pad`` falls back to ``eos`` (masks come from lengths, never from token ids).

    An adapter's own one, where it was saved with one: it is what the adapter was trained with.
    """
    path, options = source.path, _where(source, settings)
    if source.adapter is not None and _file_of(source.adapter, "tokenizer_config.json") is not None:
        config = load_config(source, settings)  # adapters come without one
        path, options = source.adapter, {"trust_remote_code": settings.trust_remote_code, "config": config}
    with explained(path, "tokenizer"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {path} has no end-of-sequence token", hint="set eos_token in it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(source: ModelSource, settings: Settings) -> PreTrainedModel:
    """The policy in fp32 with what trains marked: all weights, a fresh LoRA adapter, or the given one.

    Raises:
        ModelError: not a causal LM, unreadable weights, or no such repository.
        UsageError: ``--lora.r`` or ``--lora.alpha`` against an adapter that was trained with another one.
    """
    check_quantisation(settings, source)
    return as_policy(_load_base(source, settings), source, settings)


def as_policy(model: PreTrainedModel, source: ModelSource, settings: Settings) -> PreTrainedModel:
    """A model in memory made ready to train by the settings, as :func:`load_policy` does it."""
    policy: Any = model
    if source.adapter is not None:
        policy = _with_trained_adapter(policy, source.adapter, settings)
    elif settings.lora_r:
        policy = _with_new_adapter(policy, settings)
    for config in getattr(policy, "peft_config", {}).values():
        config.base_model_name_or_path = source.base
    if not settings.dropout:
        disable_dropout(policy)  # after the adapter came in, which may bring dropout of its own
    if settings.activation_checkpointing:
        _checkpoint_activations(policy, source)
        if not settings.dropout:
            checkpoint_in_eval_mode(policy)
    return policy


def _checkpoint_activations(policy: Any, source: ModelSource) -> None:
    """Layers that keep their inputs only; they take effect in training mode."""
    base = without_adapter(policy)
    if not base.supports_gradient_checkpointing:
        raise UsageError(
            f"--activation-checkpointing: {source.path} has no layers that can be computed again",
            hint="leave it out; a smaller --micro-batch-size or --tokens-per-micro-batch saves memory too",
        )
    with quiet():
        base.gradient_checkpointing_enable({"use_reentrant": False})


def how_to_load(source: ModelSource, adapter: Path) -> str:
    """What loads an adapter on a .gguf file in plain transformers and peft: they find no base in such a file alone."""
    file = Path(source.base)
    options = f"{str(file.parent)!r}, gguf_file={file.name!r}"
    if hasattr(transformers, "GgufConfig"):
        options += ", quantization_config=transformers.GgufConfig(dequantize=True)"
    return (
        "the base of the adapter is a .gguf file; alignzoo finds it again, and in transformers and peft load "
        f"base = transformers.AutoModelForCausalLM.from_pretrained({options}); "
        f"model = peft.PeftModel.from_pretrained(base, {str(adapter.absolute())!r})"
    )


def check_quantisation(settings: Settings, source: ModelSource) -> None:
    """What a base in 4 bits needs.

    Raises:
        UsageError: no adapter that trains in its place, no CUDA device, no bitsandbytes, or a .gguf base.
    """
    if settings.quantize == "none":
        return
    said = f"--quantize {settings.quantize}"
    if not settings.lora_r and source.adapter is None:
        raise UsageError(f"{said} needs an adapter to train: weights in 4 bits do not", hint="add --lora.r 16")
    if source.gguf:
        raise UsageError(f"{said} does not go with a .gguf model", hint="give the folder or hub id that it was made of")
    if not torch.cuda.is_available():
        raise UsageError(f"{said} needs a CUDA device, and there is none", hint="leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"{said} needs the bitsandbytes package", hint="pip install 'alignzoo[bitsandbytes]'")


def _load_base(source: ModelSource, settings: Settings) -> PreTrainedModel:
    """The model without an adapter: whole, causal, in fp32."""
    options = _where(source, settings)
    if not source.gguf:
        options |= safetensors_only()
    elif hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)  # packed blocks do not train
    if settings.quantize == "4bit":
        options |= {"quantization_config": four_bits(settings), "device_map": {"": torch.cuda.current_device()}}
    with explained(source.path, "model"), quiet():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=torch.float32, output_loading_info=True, **options
        )
    _check_whole(model, loaded["missing_keys"], source.path)
    _check_causal(model, source.path)
    if source.gguf:  # the weights were dequantised, and save_pretrained refuses what still looks quantised
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def safetensors_only() -> dict[str, Any]:
    """The words for ``from_pretrained`` that let no pickled weights in."""
    # Without it, transformers asks the hub to convert a repository that has other weights only.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    return {"use_safetensors": True}


def check_vocabulary(policy: PreTrainedModel, highest: int, name: str) -> None:
    """Refuse token ids that the model has no embeddings for.

    Raises:
        ModelError: ``highest``, the largest id that will be asked for, is one.
    """
    embeddings = policy.get_input_embeddings().weight.shape[0]
    if highest >= embeddings:
        raise ModelError(
            f"the tokenizer of {name} gives ids up to {highest}, and the model has {embeddings} embeddings",
            hint="take the model's own tokenizer, or save the model with resized embeddings",
        )


def _check_whole(model: PreTrainedModel, missing: Collection[str], path: str) -> None:
    """transformers draws weights that a checkpoint lacks at random, and says so in a warning only."""
    if missing:
        names = sorted(missing)
        raise ModelError(
            f"{path} is not a whole causal language model: it lacks {len(names)} weights of {type(model).__name__}, "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}",
            hint="alignzoo trains models of AutoModelForCausalLM, with their language-modelling head",
        )


@torch.no_grad()
def _check_causal(model: PreTrainedModel, path: str) -> None:
    """Encoders load as AutoModelForCausalLM too, and see the tokens that they are to predict."""
    first = model(input_ids=torch.tensor([[0, 1, 2, 3]], device=model.device)).logits[:, :3]
    other_end = model(input_ids=torch.tensor([[0, 1, 2, 4]], device=model.device)).logits[:, :3]
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


def four_bits(settings: Settings) -> Any:
    """QLoRA's way to hold a frozen base: NF4, its scales quantised as well, computed in the run's dtype."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _with_new_adapter(model: PreTrainedModel, settings: Settings) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_r, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(settings.seed)  # the adapter's A is drawn
    with quiet():
        return get_peft_model(model, config)


def _with_trained_adapter(model: PreTrainedModel, adapter: str, settings: Settings) -> Any:
    """The adapter continues training; a frozen copy of it is the reference's."""
    from peft import PeftConfig, PeftModel

    with explained(adapter, "adapter"):
        config = PeftConfig.from_pretrained(adapter)
    _check_lora_settings(config, adapter, settings)
    if _file_of(adapter, _ADAPTER_WEIGHTS) is None:
        raise ModelError(
            f"cannot load the adapter of {adapter}: it holds no {_ADAPTER_WEIGHTS}",
            hint=SAFETENSORS_ONLY.format("peft"),
        )
    with explained(adapter, "adapter"):
        policy = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        policy.load_adapter(adapter, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    policy.set_adapter("default")
    return policy


def _check_lora_settings(config: Any, adapter: str, settings: Settings) -> None:
    """An adapter that continues training keeps its rank and scale."""
    rank, alpha = getattr(config, "r", None), getattr(config, "lora_alpha", None)
    if settings.lora_r and settings.lora_r != rank:
        raise UsageError(
            f"--lora.r {settings.lora_r} does not fit the adapter in {adapter}, which has rank {rank}",
            hint="leave --lora.r out to continue training it, or merge it into its base first",
        )
    if "lora_alpha" in settings.model_fields_set and settings.lora_alpha != alpha:
        raise UsageError(
            f"--lora.alpha {settings.lora_alpha:g} does not fit the adapter in {adapter}, which has alpha {alpha}",
            hint="leave --lora.alpha out to continue training it, or merge it into its base first",
        )
