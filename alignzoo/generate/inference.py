"""A model set up for inference, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alignzoo.lazy import torch


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; restores every module's training flag.

    ``no_grad``, not ``inference_mode``: tensors that a module keeps (RoPE tables, gathered weights) must stay usable
    in training.
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training
