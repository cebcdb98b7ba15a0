"""Whether two models of a process compute the same: what their outputs follow from, as one key."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.model.base import without_adapter
from alignzoo.model.weights import config_digest, fingerprint

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "parametrizations")


def outputs_key(model: Any, weights: str | None = None) -> tuple[Any, ...] | None:
    """Equal for two models that compute the same, bit for bit; None where that cannot be told.

    Weights, buffers, configs, the modules' classes and modes and how attention is computed decide it, unless something
    hangs on a module: a hook, a parametrisation or a ``forward`` of its own, as for autocast or a method's branch.

    Args:
        weights: the model's fingerprint, where it is known.
    """
    modules = [*model.named_modules()]
    for _, module in modules:
        own = vars(module)
        if "forward" in own or any(own.get(name) for name in _HOOKS) or "parametrizations" in own.get("_modules", ()):
            return None
    base = without_adapter(model)
    generation = getattr(base, "generation_config", None)
    return (
        weights or fingerprint(model),
        config_digest(model),
        getattr(base.config, "_attn_implementation", None),
        None if generation is None else generation.to_json_string(),
        tuple((name, type(module), module.training) for name, module in modules),
        str(next(model.parameters()).device),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
    )
