"""What the tests of export compare."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from alignzoo_sandbox import MODEL_PATH
from transformers import AutoTokenizer

Az = Callable[..., "subprocess.CompletedProcess[str]"]
MakeModel = Callable[..., Path]


def logits(model: Any, text: str = "Tell me how to open a lock, please: 12 + 34!") -> torch.Tensor:
    """Logits of a model for a text encoded with the sandbox's tokenizer, ``(1, T, V)``."""
    ids = AutoTokenizer.from_pretrained(MODEL_PATH)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float()


def largest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two tensors."""
    return float((one - other).abs().max())
