"""``--compile``: every decoder layer compiled by ``torch.compile``, in place and for any length of rows.

Packed attention is left out: what it does depends on the pack's segments. A layer then is three graphs around it, which
all layers and all lengths of rows share. In place, because accelerate's ``compile_regions`` makes another model with
other names of modules and weights, by which adapters, checkpoints and controllers find them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch

from alignzoo.distributed.sharding import decoder_layers
from alignzoo.logprobs.attention import NAME, packed_attention


def compile_layers(model: Any, *, backend: str = "inductor") -> None:
    """Compile the decoder layers of a model, before it is sharded; copies of it are not compiled.

    Layers that recompute their activations are compiled inside the recomputation, and only where they recompute.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    for layer in decoder_layers(model):
        given: Any = layer
        if getattr(layer, "gradient_checkpointing", False):
            given._gradient_checkpointing_func = partial(_compiled_inside, given._gradient_checkpointing_func, backend)
        else:
            given.compile(dynamic=True, backend=backend)


def uncompiled() -> AbstractContextManager[Any]:
    """Inside, compiled layers run as they are written. Compiled code takes no notice of hooks that come later."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _compiled_inside(checkpoint: Callable[..., Any], backend: str, function: Any, *inputs: Any) -> Any:
    """``checkpoint(function, *inputs)`` of a layer whose own forward, the partial ``function``, is compiled."""
    compiled = _compiled(function.func, backend)
    return checkpoint(partial(compiled, *function.args, **function.keywords), *inputs)


@cache
def _compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """A layer class's forward, compiled once for all its layers."""
    return torch.compile(function, dynamic=True, backend=backend)
