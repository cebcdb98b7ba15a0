"""The weights to export: an adapter merged into its base, checked, in the chosen dtype."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.errors import AlignzooError, ModelError, UsageError

if TYPE_CHECKING:
    from alignzoo.model.source import ModelSource
    from alignzoo.plan.settings import Settings

Dtype = Literal["fp32", "bf16", "fp16", "keep"]
_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_MERGE_TOLERANCE = 1e-3
"""Largest change of a logit by merging in fp32, relative to the largest logit. Rounding alone stays below 1e-5."""
_GB = 1e9


@dataclass(frozen=True)
class Exported:
    """A model in memory, ready to be saved.

    Attributes:
        model: without adapter, or the policy with its adapter if it is not merged.
        merged: whether an adapter was merged into it.
        dtype: of the saved weights, as torch names it.
        notes: what to say of it.
    """

    model: Any
    tokenizer: Any
    merged: bool
    dtype: str
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """The number of weights that are saved."""
        return sum(parameter.numel() for parameter in _saved_parameters(self.model))

    @property
    def size(self) -> int:
        """The size of the saved weights in bytes."""
        return sum(parameter.numel() * parameter.element_size() for parameter in _saved_parameters(self.model))


def load(source: ModelSource, settings: Settings, *, dtype: Dtype, merge: bool) -> Exported:
    """Load a model in fp32, merge its adapter, and convert it.

    Raises:
        ModelError: it cannot be loaded, or merging changes what it predicts.
        UsageError: its base is stored quantised, or ``merge`` is off and there is no adapter.
    """
    import torch

    from alignzoo.model.explained import quiet
    from alignzoo.model.load import load_config, load_policy, load_tokenizer

    config = load_config(source, settings)
    _refuse_quantised(config, source)
    if not merge and source.adapter is None:
        raise UsageError("--no-merge: this model has no adapter", hint="leave it out")
    tokenizer = load_tokenizer(source, settings)
    with quiet():
        policy: Any = load_policy(source, settings)
    if source.adapter is not None and not merge:
        return Exported(policy, tokenizer, merged=False, dtype="float32")
    model = merged(policy) if source.adapter is not None else policy
    kept = "float32" if source.gguf else str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    name = kept if dtype == "keep" else _NAMES[dtype]
    model = model.to(getattr(torch, name)).eval()
    return Exported(model, tokenizer, merged=source.adapter is not None, dtype=name)


def merged(policy: Any) -> Any:
    """The policy's model with its adapter merged into its weights, in fp32.

    Raises:
        ModelError: the merged model predicts something else, as with an adapter on one of two tied matrices.
    """
    import torch

    policy.set_adapter("default")
    ids = torch.arange(16).unsqueeze(0) % policy.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        before = policy.eval()(input_ids=ids).logits
        model = policy.merge_and_unload(adapter_names=["default"])
        after = model.eval()(input_ids=ids).logits
    change = float((after - before).abs().max() / before.abs().max().clamp_min(1.0))
    if not change <= _MERGE_TOLERANCE:
        raise ModelError(
            f"merging the adapter would change the model's logits by {change:.1%} of the largest one",
            hint="an adapter on tied embeddings cannot be merged; export the adapter alone with --no-merge",
        )
    return model


def save(exported: Exported, folder: Path, max_shard_size: str) -> None:
    """Write weights, configs, tokenizer and chat template to a folder that plain transformers (or peft) can load."""
    from alignzoo.model.explained import quiet
    from alignzoo.model.weights import save_model

    if not exported.merged and hasattr(exported.model, "peft_config"):
        save_model(exported.model, exported.tokenizer, folder, exported.model.state_dict())
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
        return
    with quiet():
        exported.model.save_pretrained(folder, max_shard_size=max_shard_size)
    exported.tokenizer.save_pretrained(folder)


def check_space(folder: Path, needed: int) -> None:
    """Refuse an export that would not fit.

    Args:
        folder: where it goes; need not exist.
        needed: in bytes.

    Raises:
        AlignzooError: there is less free space.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise AlignzooError(
            f"the export needs {needed / _GB:.2f} GB, but only {free / _GB:.2f} GB are free at {existing}",
            hint="free some space, choose another --out, or export in --dtype bf16",
        )


def _saved_parameters(model: Any) -> list[Any]:
    """The parameters that ``save_pretrained`` writes: of an adapter, its own."""
    if hasattr(model, "peft_config"):
        return [parameter for name, parameter in model.named_parameters() if ".default." in name]
    return list(model.parameters())


def _refuse_quantised(config: Any, source: ModelSource) -> None:
    stored = getattr(config, "quantization_config", None)
    if stored is None or source.gguf:
        return
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
    raise UsageError(
        f"the weights of {source.path} are stored quantised ({method}), so the model cannot be exported in full "
        "precision",
        hint="use the checkpoint that they were quantised from: name it as base_model_name_or_path in the adapter's "
        "adapter_config.json",
    )
