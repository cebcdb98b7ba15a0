"""What a log-prob under the reference depends on: the reference's weights, how it computes, and a response's tokens.

Nothing else is in these keys. Token ids stand for themselves, so tokenizer, template and truncation count where they
change ids and only there; a swapped label, another seed or another learning rate change no key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from alignzoo.data.collate import TokenBatch
from alignzoo.data.digests import digest
from alignzoo.logprobs.logps import has_fused_head, innermost
from alignzoo.model.base import REFERENCE_ADAPTER, without_adapter
from alignzoo.model.weights import config_digest, fingerprint
from alignzoo.plan.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset

_VERSION = 1  # raise it when the same weights and tokens would be given other log-probs
_WIDTH = 4  # bytes of a token id
_SIDES = ("prompt_ids", "chosen_ids", "rejected_ids")


def reference_identity(policy: Any, settings: Settings, weights: str, *, way: str) -> str:
    """A hash of the reference and of how it computes, 32 hex digits.

    A new adapter is off in the reference, so that its run shares the base's log-probs; the frozen copy of a trained
    one counts.

    Args:
        policy: the policy with the weights that training starts from, not sharded.
        weights: its fingerprint.
        way: how its log-probs are computed (:attr:`alignzoo.logprobs.forward.Choice.way`).
    """
    adapters = getattr(policy, "peft_config", None)
    if adapters is not None:
        weights = fingerprint(_reference_weights(policy, set(adapters)))
    base, active = without_adapter(policy), {REFERENCE_ADAPTER} & set(adapters or ())
    code = f"{type(base).__module__}.{type(base).__qualname__} of transformers {transformers.__version__}"
    kind = (settings.precision, settings.quantize)
    rounding = (
        _rounding(policy, way) if kind != ("fp32", "none") or torch.get_float32_matmul_precision() != "highest" else ()
    )
    return digest(_VERSION, weights, config_digest(policy, adapters=active), code, *kind, *rounding)[:32]


def _rounding(policy: Any, way: str) -> tuple[str, ...]:
    """What moves log-probs by more than fp32's last digits where products are rounded to fewer bits."""
    model = innermost(policy)
    implementations = (getattr(model.config, f"_{part}_implementation", None) for part in ("attn", "experts"))
    head = "fused head" if has_fused_head(policy) else "logits"
    return (way, head, model.device.type, torch.get_float32_matmul_precision(), *map(str, implementations))


def _reference_weights(policy: Any, adapters: set[str]) -> dict[str, torch.Tensor]:
    """The tensors that an adapted policy computes with as the reference; the base's under their names without
    adapters."""
    layers = {layer for module in policy.modules() for layer in getattr(module, "adapter_layer_names", ())}
    others, kept = adapters - {REFERENCE_ADAPTER}, {}
    for name, tensor in policy.state_dict().items():
        words = name.removeprefix("base_model.model.").split(".")
        if any(layer in layers and owner in others for layer, owner in pairwise(words)):
            continue
        kept[".".join(word for word in words if word != "base_layer")] = tensor
    return kept


def response_keys(prompt: memoryview, *responses: memoryview) -> bytes:
    """16 bytes per response that depend on its ids, on the prompt's, and on where the one ends and the other begins.

    Args:
        prompt, responses: token ids as little-endian int32, in bytes.
    """
    start = hashlib.sha256(len(prompt).to_bytes(8, "little"))  # which processors compute faster than blake2
    start.update(prompt)
    keys = []
    for response in responses:
        whole = start.copy()
        whole.update(response)
        keys.append(whole.digest()[:16])
    return b"".join(keys)


def batch_keys(batch: TokenBatch) -> np.ndarray:
    """``(2B, 2)`` int64: the keys of a batch's responses, the chosen ones first."""
    ids, real = batch.input_ids.cpu().numpy(), batch.attention_mask.cpu().numpy().astype(bool)
    prompts = batch.prompt_lengths.tolist() * 2
    found = []
    for row, mask, prompt in zip(ids, real, prompts, strict=True):
        tokens = in_bytes(row[mask])
        found.append(response_keys(tokens[: _WIDTH * prompt], tokens[_WIDTH * prompt :]))
    return as_keys(b"".join(found))


def dataset_keys(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the tokenised pairs with these row numbers ``(n,)``: ``(n, 2, 2)`` int64 keys of the chosen and of the
    rejected response, and ``(n, 3)`` int64 lengths of prompt, chosen and rejected, in tokens."""
    stored = rows if dataset._indices is None else dataset._indices.column(0).to_numpy()[rows]
    order = np.argsort(stored, kind="stable")  # the table is read from front to back, whatever selects from it
    stored = stored[order]
    keys, lengths = np.zeros((len(rows), 2, 2), np.int64), np.zeros((len(rows), 3), np.int64)
    first = 0
    for block in dataset.data.select(list(_SIDES)).to_batches():
        begin, end = np.searchsorted(stored, (first, first + len(block)))
        places = order[begin:end]
        if len(places):
            content, lengths[places] = _block_keys(block, (stored[begin:end] - first).tolist())
            keys[places] = as_keys(content).reshape(-1, 2, 2)
        first += len(block)
    return keys, lengths


def _block_keys(block: Any, rows: Sequence[int]) -> tuple[bytes, np.ndarray]:
    """The keys of some rows of a record batch of the three columns, and their lengths."""
    found, lengths = bytearray(), []
    sides = []
    for lists in block.columns:
        offsets = lists.offsets.to_numpy()
        ids = lists.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy(zero_copy_only=False)
        sides.append((in_bytes(ids), ((offsets - offsets[0]) * _WIDTH).tolist()))
        lengths.append(np.diff(offsets)[rows])
    for row in rows:
        found += response_keys(*(ids[bounds[row] : bounds[row + 1]] for ids, bounds in sides))
    return bytes(found), np.stack(lengths, axis=1)


def in_bytes(ids: np.ndarray) -> memoryview:
    """Token ids as :func:`response_keys` takes them."""
    return memoryview(ids.astype("<i4").tobytes())


def as_keys(content: bytes) -> np.ndarray:
    """``(n, 2)`` int64 from 16 bytes each."""
    return np.frombuffer(content, dtype="<i8").reshape(-1, 2)
