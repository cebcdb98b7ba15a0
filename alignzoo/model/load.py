"""Policies and tokenizers from a hub id, a local folder, a PEFT adapter, a ``.gguf`` file or the embedded sandbox."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from alignzoo.errors import ModelError, UsageError
from alignzoo.plugin.resolve import SANDBOX
from alignzoo.plugin.settings import Settings


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights and tokenizer come from.

    Attributes:
        path: what ``from_pretrained`` gets: a hub id or a folder.
        gguf: the file inside ``path``, for a ``.gguf`` model.
        adapter: folder of an already trained PEFT adapter on top of ``path``.
    """

    path: str
    gguf: str | None = None
    adapter: str | None = None


def find_model(name: str) -> ModelSource:
    """Resolve ``--model`` without loading weights.

    Raises:
        ModelError: a path that does not exist or holds no model; a gguf file without the ``gguf`` package.
    """
    if name == SANDBOX:
        from alignzoo.sandbox import MODEL_PATH

        return ModelSource(str(MODEL_PATH))
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".gguf":
        return _gguf(path)
    if path.exists():
        raise ModelError(f"--model {name} is a file", hint="give a folder saved by transformers, or a .gguf file")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"--model {name}: no such folder", hint="give a local folder, a .gguf file or a hub id")
    return ModelSource(name)


def _folder(path: Path) -> ModelSource:
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{adapter} names no base model", hint="merge the adapter into its base first")
        inner = find_model(str(base))
        return ModelSource(inner.path, inner.gguf, adapter=str(path))
    if not (path / "config.json").is_file():
        raise ModelError(
            f"--model {path}: no config.json in that folder", hint="give a folder written by save_pretrained"
        )
    return ModelSource(str(path))


def _gguf(path: Path) -> ModelSource:
    if not path.is_file():
        raise ModelError(f"--model {path}: no such file")
    with contextlib.suppress(ImportError):
        import gguf  # noqa: F401

        return ModelSource(str(path.parent), gguf=path.name)
    raise ModelError("a .gguf model needs the gguf package", hint="pip install 'alignzoo[gguf]'")


def load_tokenizer(source: ModelSource, settings: Settings) -> PreTrainedTokenizerBase:
    """The model's tokenizer; ``pad`` falls back to ``eos`` (masks come from lengths, never from token ids)."""
    with _explained(source.adapter or source.path, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source.path, **_where(source, settings))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {source.path} has no end-of-sequence token", hint="set eos_token in it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(source: ModelSource, settings: Settings) -> PreTrainedModel:
    """The policy in fp32 with what trains marked: all weights, a fresh LoRA adapter, or the given one.

    Raises:
        ModelError: not a causal LM, unreadable weights, or no such repository.
        UsageError: ``--lora.r`` against an adapter that was trained with another rank.
    """
    with _explained(source.path, "model"), quiet():
        model = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32, **_where(source, settings))
    if source.gguf and hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights were dequantised; save_pretrained refuses otherwise
    if not settings.dropout:
        disable_dropout(model)
    if source.adapter is not None:
        return _with_trained_adapter(model, source.adapter, settings)
    if settings.lora_r:
        return _with_new_adapter(model, settings)
    return model


def _where(source: ModelSource, settings: Settings) -> dict[str, Any]:
    where: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if source.gguf:
        where["gguf_file"] = source.gguf
    return where


def _with_new_adapter(model: PreTrainedModel, settings: Settings) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_r, lora_alpha=settings.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(settings.seed)  # the adapter's A is drawn
    return get_peft_model(model, config)


def _with_trained_adapter(model: PreTrainedModel, adapter: str, settings: Settings) -> Any:
    """The adapter goes on training; a frozen copy of it is the reference's."""
    from peft import PeftConfig, PeftModel

    from alignzoo.model.reference import REFERENCE_ADAPTER

    config = PeftConfig.from_pretrained(adapter)
    rank = getattr(config, "r", None)
    if settings.lora_r and settings.lora_r != rank:
        raise UsageError(
            f"--lora.r {settings.lora_r} does not fit the adapter in {adapter}, which has rank {rank}",
            hint="leave --lora.r out to go on training it, or merge it into its base first",
        )
    with _explained(adapter, "adapter"):
        policy = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        policy.load_adapter(adapter, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    policy.set_adapter("default")
    return policy


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout probability to 0: modules, and the floats that functional attention dropout reads."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


@contextlib.contextmanager
def _explained(path: str, what: str) -> Iterator[None]:
    """Loading errors of transformers and peft in the user's terms."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "Unrecognized configuration class" in first or "Unrecognized model" in first:
            raise ModelError(
                f"{path} is not a causal language model", hint="alignzoo trains models of AutoModelForCausalLM"
            ) from error
        raise ModelError(
            f"cannot load the {what} of {path}: {first}",
            hint="check the path or hub id, and that the files are complete (`alignzoo doctor`)",
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers' loading report and bars go to stderr in a format of their own; ours says what matters."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
