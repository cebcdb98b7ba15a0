"""Identifies a reference: its weights and how it computes. :mod:`alignzoo.reference.keys` identifies responses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import transformers

from alignzoo.data.digests import digest
from alignzoo.distributed.sharding import class_of
from alignzoo.logprobs.logps import has_fused_head, innermost
from alignzoo.model.base import REFERENCE_ADAPTER, without_adapter
from alignzoo.model.weights import config_digest, fingerprint
from alignzoo.plan.settings import Settings

_VERSION = 1  # raise it when the same weights and tokens would give different log-probs


def reference_identity(policy: Any, settings: Settings, weights: str, *, way: str) -> str:
    """A hash of the reference and of how it computes, 32 hex digits.

    A new adapter is off in the reference, so its run shares the base's log-probs; the frozen copy of a trained one
    counts.

    Args:
        policy: the policy with the weights that training starts from; all ranks that share it call this.
        weights: its fingerprint.
        way: how its log-probs are computed (:attr:`alignzoo.logprobs.forward.Choice.way`).
    """
    adapters = getattr(policy, "peft_config", None)
    if adapters is not None:
        weights = fingerprint(_reference_weights(policy, set(adapters)))
    base, active = without_adapter(policy), {REFERENCE_ADAPTER} & set(adapters or ())
    kind_of_model = class_of(base)
    code = f"{kind_of_model.__module__}.{kind_of_model.__qualname__} of transformers {transformers.__version__}"
    kind = (settings.precision, settings.quantize)
    rounding = (
        _rounding(policy, way) if kind != ("fp32", "none") or torch.get_float32_matmul_precision() != "highest" else ()
    )
    return digest(_VERSION, weights, config_digest(policy, adapters=active), code, *kind, *rounding)[:32]


def _rounding(policy: Any, way: str) -> tuple[str, ...]:
    """Facts that change log-probs by more than fp32's last digits in reduced precision."""
    model = innermost(policy)
    implementations = (getattr(model.config, f"_{part}_implementation", None) for part in ("attn", "experts"))
    head = "fused head with fp32 logits" if has_fused_head(policy) else "logits"
    return (
        way,
        head,
        model.device.type,
        torch.get_float32_matmul_precision(),
        *map(str, implementations),
    )


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
