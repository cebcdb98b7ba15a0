"""A model in evaluation mode, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode; restores every module's training flag.

    Gradients are turned off where the model is called, with ``no_grad`` (an iterator must not turn them off for whoever
    consumes it; and ``inference_mode`` would leave tensors that a module keeps, such as RoPE tables, unusable in
    training).
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
