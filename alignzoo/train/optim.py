"""Optimizers by name and learning rates by step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from alignzoo.base.suggest import suggest
from alignzoo.distributed.shards import cut_like, is_sharded
from alignzoo.errors import UsageError
from alignzoo.plan.settings import Settings

EIGHT_BIT = "adamw8bit"


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The ``torch.optim`` class called ``name``, in any case: ``adamw``, ``rmsprop``, ``SGD``, ``Adafactor``, ...;
    or ``adamw8bit``, of bitsandbytes.

    Raises:
        UsageError: there is none, it needs a closure, or its requirements are missing.
    """
    known = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    for unusable in ("lbfgs", "sparseadam", "muon"):  # closures, sparse gradients, matrices only
        known.pop(unusable, None)
    if name.lower() == EIGHT_BIT:
        return _eight_bit_adamw()
    if name.lower() not in known:
        raise UsageError(
            f"--optimizer {name}: torch.optim has no such optimizer for this loop",
            hint=suggest(name, known) or f"known: {', '.join(sorted(known))}",
        )
    return known[name.lower()]


def _eight_bit_adamw() -> type[torch.optim.Optimizer]:
    """bitsandbytes' AdamW, whose moments take a byte each."""
    if not torch.cuda.is_available():
        raise UsageError(f"--optimizer {EIGHT_BIT} needs a CUDA device, and there is none", hint="use adamw")
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]
    except ImportError:
        hint = "pip install 'alignzoo[bitsandbytes]'"
        raise UsageError(f"--optimizer {EIGHT_BIT} needs the bitsandbytes package", hint=hint) from None
    kind: type[torch.optim.Optimizer] = AdamW8bit
    return kind


def make_optimizer(parameters: Iterable[torch.nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """The run's optimizer over the trainable parameters, with a fused kernel if torch has one (AdamW on a CPU: six
    times as fast)."""
    kind, weights = optimizer_class(settings.optimizer), list(parameters)
    options: dict[str, Any] = {"lr": settings.lr}
    cut = any(map(is_sharded, weights))  # only Adam's fused kernels support shards
    if "fused" in inspect.signature(kind).parameters and (not cut or issubclass(kind, torch.optim.Adam)):
        options["fused"] = True
    if "weight_decay" in inspect.signature(kind).parameters:
        options["weight_decay"] = settings.weight_decay
    elif settings.weight_decay:
        raise UsageError(f"--weight-decay has no effect here: --optimizer {settings.optimizer} does not support it")
    return kind(_by_decay(weights) if settings.weight_decay else weights, **options)


def _by_decay(weights: Sequence[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, biases and norms do not. A shard's dimensions are those of the whole tensor."""
    matrices = [weight for weight in weights if weight.dim() > 1]
    vectors = [weight for weight in weights if weight.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict with whole or sharded tensors, for weights that may be sharded."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def cut(value: Any, weight: torch.Tensor) -> Any:
        of_its_shape = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape == weight.shape
        if not of_its_shape or is_sharded(value) or not is_sharded(weight):
            return value
        return cut_like(value, weight).clone()  # the whole may be a file that is mapped

    moments = {
        index: {name: cut(value, weights[index]) for name, value in kept.items()}
        for index, kept in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """The learning rate of 0-based ``step`` of ``steps``: linear warm-up, then cosine or linear to 0, or constant.

    The warm-up of n steps rises by lr/(n + 1) in each, so the first step after it is the first at the peak.
    """
    warmup = min(settings.warmup_steps, steps - 1)  # a short run reaches the peak, too
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - warmup) / max(1, steps - warmup)
    if settings.schedule == "linear":
        return settings.lr * (1 - done)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
