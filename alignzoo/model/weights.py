"""Weights as files and as identities: what a checkpoint contains, what ``model/`` contains, which weights these are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from alignzoo.data.digests import digest
from alignzoo.distributed.shards import is_sharded, local, rows_of, sums
from alignzoo.model.base import REFERENCE_ADAPTER, without_adapter
from alignzoo.model.explained import quiet

_CHUNK = 1 << 22  # elements whose sums are hashed together
_BLOCK = 1 << 16  # words summed at a time on a CPU: their 64-bit copies stay in its cache
_NOT_DECIDING = (
    "_name_or_path",
    "base_model_name_or_path",
    "revision",
    "transformers_version",
    "peft_version",
    "dtype",
    "torch_dtype",
    "inference_mode",
    "use_cache",
    "_attn_implementation",
    "pad_token_id",  # padding is masked; if a head reads it, Scorer.pad_id covers it
)


def on_the_cpu(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as a file takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def fingerprint(weights: torch.nn.Module | Mapping[str, torch.Tensor]) -> str:
    """A content hash of a model's parameters and buffers, or of a state dict, 32 hex digits: any changed element
    changes it. Of sharded weights it is that of the whole ones; then all ranks call it.

    Per tensor, sums of its bit pattern with two different weightings: as fast as memory allows, but not secure
    against an adversary.
    """
    content = hashlib.blake2b(digest_size=16)
    state = dict(sorted((weights.state_dict() if isinstance(weights, torch.nn.Module) else weights).items()))
    added = sums([_bits(tensor) for tensor in state.values()], list(state.values()))
    for (name, tensor), chunks in zip(state.items(), added, strict=True):
        plain = weighted = 0
        for of_plain, of_weighted in chunks.tolist():
            plain += of_plain
            weighted = weighted * 3 + of_weighted
        content.update(repr((name, tuple(tensor.shape), str(tensor.dtype), plain, weighted)).encode())
    return content.hexdigest()


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """``(chunks, 2)`` int64: for each chunk of the whole tensor, both sums over this rank's elements of it.

    The sums are linear in the bytes, and overflow alike in any order, so those of all ranks add up to the whole's.
    """
    data = local(tensor).contiguous().flatten()
    begin = rows_of(tensor).start * (tensor.numel() // max(1, len(tensor))) if is_sharded(tensor) else 0
    found = torch.zeros(-(-tensor.numel() // _CHUNK), 2, dtype=torch.int64, device=data.device)
    for index in range(begin // _CHUNK, -(-(begin + len(data)) // _CHUNK)):
        start = max(begin, index * _CHUNK)
        chunk = data[start - begin : (index + 1) * _CHUNK - begin]
        offset = (start - index * _CHUNK) * chunk.element_size()  # in bytes; a word may be shared with another rank
        bits = chunk.view(torch.uint8)
        around = (offset % 4, -(offset + len(bits)) % 4)
        whole = not any(around) and bits.storage_offset() % 4 == 0
        words = (bits if whole else F.pad(bits, around)).view(torch.int32)
        found[index] = _sums(words, offset // 4 + 1)
    return found


def _sums(words: torch.Tensor, first: int) -> torch.Tensor:
    """``(2,)`` int64: the sum of int32 words, and that of each times its number, counted from ``first``."""
    size = max(1, min(len(words), _BLOCK) if words.device.type == "cpu" else len(words))  # a rank may hold no row
    numbers = torch.arange(size, device=words.device)
    found = torch.zeros(2, dtype=torch.int64, device=words.device)
    for start in range(0, len(words), size):
        block = words[start : start + size].to(torch.int64)
        plain = block.sum()
        found += torch.stack([plain, (block * numbers[: len(block)]).sum() + plain * (first + start)])
    return found


def config_digest(model: Any, *, adapters: Collection[str] | None = None) -> str:
    """A hash of what determines a model's outputs besides its weights: its config and those of its adapters.

    Args:
        adapters: include only the adapters with these names.
    """
    present = getattr(model, "peft_config", {})
    counted = [present[name] for name in sorted(present) if adapters is None or name in adapters]
    configs = [without_adapter(model).config, *counted]
    return digest([_deciding(json.loads(json.dumps(c.to_dict(), default=_plain))) for c in configs])


def _plain(value: Any) -> Any:
    """A value that JSON cannot represent, the same in every process."""
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _deciding(config: Any) -> Any:
    """A config without entries on its origin or storage, recursively."""
    if isinstance(config, list):
        return [_deciding(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {name: _deciding(value) for name, value in config.items() if name not in _NOT_DECIDING}


def save_model(model: Any, tokenizer: Any, folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Write a folder that plain ``transformers`` (or ``peft``, for an adapter) can load.

    Args:
        model: the unwrapped policy.
        state: its full state dict, gathered if sharded.
    """
    options: dict[str, Any] = {"state_dict": state}
    if hasattr(model, "peft_config"):
        kept = {name: tensor for name, tensor in state.items() if f".{REFERENCE_ADAPTER}." not in name}
        options = {"state_dict": kept, "selected_adapters": ["default"]}
    with quiet():
        model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
