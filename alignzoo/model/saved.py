"""``model/`` written from sharded weights: one weight after another is gathered, written by the first rank, and let go.

The files are those that one process writes: the same names and values, in safetensors files of bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers.core_model_loading import WeightRenaming, revert_weight_conversion

from alignzoo.distributed.sharding import full_state
from alignzoo.distributed.shards import whole
from alignzoo.model.weights import save_model

FILE_BYTES = 5 * 10**9
"""Size of a safetensors file at most, unless a single weight is larger."""
_KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class _Stored:
    """A tensor under the name that it is stored under."""

    name: str
    tensor: torch.Tensor

    @property
    def size(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()


def save_sharded(model: Any, tokenizer: Any, folder: Path | None, *, file_bytes: int = FILE_BYTES) -> None:
    """Write a folder that plain ``transformers`` (or ``peft``, for an adapter) can load, as
    :func:`~alignzoo.model.weights.save_model` does; all ranks call it.

    Args:
        model: the unwrapped policy, sharded.
        folder: where to; None on ranks that do not write.

    Raises:
        OSError: it could not be written; only on the rank that writes, after all ranks are done.
    """
    if hasattr(model, "peft_config"):
        _save_whole(model, tokenizer, folder, only=lambda name: _of_adapter(model, name))
        return
    stored = _stored(model)
    if stored is None:
        _save_whole(model, tokenizer, folder)
        return
    failed: Exception | None = None
    if folder is not None:
        try:
            save_model(model, tokenizer, folder, {})  # configs and tokenizer
            (folder / "model.safetensors").unlink(missing_ok=True)
        except Exception as error:
            failed = error
    files = _files(stored, file_bytes)
    for name, tensors in files.items():
        gathered = (whole(each.tensor) for each in tensors)
        if folder is not None and failed is None:
            try:
                _write(folder / name, tensors, gathered)
            except OSError as error:
                failed = error
        for _ in gathered:  # on other ranks, and where the disk is full: each gathering needs all ranks
            pass
    if failed is not None:
        raise failed
    if folder is not None and len(files) > 1:
        _write_index(folder, files)


def _save_whole(
    model: Any, tokenizer: Any, folder: Path | None, only: Callable[[str], bool] = lambda name: True
) -> None:
    """Write weights that the first rank holds all at once: an adapter's, or those that transformers converts."""
    state = full_state(model, keep=folder is not None, only=only)
    if folder is not None:
        save_model(model, tokenizer, folder, state)


def _of_adapter(model: Any, name: str) -> bool:
    """Whether a tensor is one that peft may want to save: the adapter's own, or the embeddings that it may change."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(weight) for end in ends if end is not None for weight in end.parameters()}
    return "default" in name.split(".") or id(model.state_dict(keep_vars=True)[name]) in embeddings


def _stored(model: Any) -> list[_Stored] | None:
    """The model's tensors as transformers stores them, tied ones once; None if it would convert some."""
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is not None and not all(isinstance(entry, WeightRenaming) for entry in conversions):
        return None
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    tied: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in ignored:
            tied.setdefault(id(tensor), []).append(name)
    first = [next((n for n in names if n not in model.all_tied_weights_keys), names[0]) for names in tied.values()]
    by_name = {name: tensor for name, tensor in model.state_dict().items() if name in first}
    marks = {name: torch.empty(0, device="meta") for name in by_name}
    renamed = revert_weight_conversion(model, dict(marks))
    back = {id(mark): name for name, mark in marks.items()}
    if len(renamed) != len(marks) or any(id(mark) not in back for mark in renamed.values()):
        return None
    if any(tensor.dtype not in _KINDS for tensor in by_name.values()):
        return None
    return [_Stored(name, by_name[back[id(mark)]]) for name, mark in renamed.items()]


def _files(stored: Sequence[_Stored], most: int) -> dict[str, list[_Stored]]:
    """Which tensors go to which file."""
    groups: list[list[_Stored]] = [[]]
    for each in stored:
        if groups[-1] and sum(one.size for one in groups[-1]) + each.size > most:
            groups.append([])
        groups[-1].append(each)
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}


def _write(path: Path, tensors: list[_Stored], gathered: Iterator[torch.Tensor]) -> None:
    """A safetensors file, written tensor by tensor: its header is known beforehand."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for each in tensors:
        shape, kind = list(each.tensor.shape), _KINDS[each.tensor.dtype]
        header[each.name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + each.size]}
        end += each.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in gathered:
            _append(file, tensor)


def _append(file: BinaryIO, tensor: torch.Tensor) -> None:
    file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _write_index(folder: Path, files: Mapping[str, Sequence[_Stored]]) -> None:
    places = {each.name: name for name, tensors in files.items() for each in tensors}
    total = sum(each.size for tensors in files.values() for each in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
