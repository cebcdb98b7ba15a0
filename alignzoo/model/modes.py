"""Deterministic training: models that compute the same in training mode as in eval mode.

Dropout is not the only randomness in models: layers are skipped, routers jittered, experts sampled. All of it checks
for training mode, so the modules inside a model stay in eval mode, whichever mode the model is put in. This also covers
the few deterministic branches of training mode (Gemma3n clips coefficients there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel

from alignzoo.model.base import without_adapter


def disable_dropout(model: torch.nn.Module) -> None:
    """Disable all randomness of training mode.

    The modules inside the model stay in eval mode. The model itself follows :meth:`~torch.nn.Module.train` (some models
    rescale their weights in eval mode), with its own drop probabilities set to 0. For models with code outside of
    transformers, only the probabilities are set: their eval mode may compute without gradients.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    base = without_adapter(model)
    if not all(type(module).__module__.startswith("transformers.") for module in _models(base)):
        return
    for module in _inside(base):
        module.train = MethodType(_stay_in_eval_mode, module)  # type: ignore[method-assign]
        module.train(module.training)


def checkpoint_in_eval_mode(model: torch.nn.Module) -> None:
    """Make layers compute in eval mode although they checkpoint their activations, which requires training mode."""
    for layer in _checkpointing(model):
        given: Any = layer
        given._gradient_checkpointing_func = partial(_in_eval_mode, layer, given._gradient_checkpointing_func)


def _models(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model and the models inside it."""
    return (module for module in model.modules() if isinstance(module, PreTrainedModel) or module is model)


def _inside(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The outermost modules in a model that are not themselves models of transformers."""
    for child in model.children():
        if isinstance(child, PreTrainedModel):
            yield from _inside(child)
        else:
            yield child


def _stay_in_eval_mode(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """Replaces ``train``: only layers that checkpoint their activations change mode."""
    for module in self.modules():
        module.training = False
    for layer in _checkpointing(self):
        layer.training = mode
    return self


def _checkpointing(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (module for module in model.modules() if getattr(module, "gradient_checkpointing", False))


def _in_eval_mode(
    layer: torch.nn.Module, checkpoint: Callable[..., Any], function: Callable[..., Any], *inputs: Any
) -> Any:
    """``checkpoint(function, *inputs)`` with the layer in eval mode, including during recomputation."""

    def computed(*inputs: Any) -> Any:
        mode, layer.training = layer.training, False
        try:
            return function(*inputs)
        finally:
            layer.training = mode

    return checkpoint(computed, *inputs)
