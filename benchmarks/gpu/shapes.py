"""What the parts measure: shapes of models, lengths of pairs, the operations of a step, and what a card can do."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).parents[2]
GIB = 2**30
Figures = dict[str, Any]
Pair = tuple[list[int], list[int], list[int]]
"""Token ids of a prompt, its chosen and its rejected response."""
RANK = 16
"""Of the adapter of the 8B shape."""
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""The first two are those of Llama-3.2-1B and Llama-3.1-8B."""


@dataclass(frozen=True)
class Work:
    """The pairs of a step: how many, and bounds of their lengths in tokens.

    Attributes:
        settings: of the run, beside those of every measurement.
    """

    pairs: int
    prompt: tuple[int, int]
    response: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)


WORK = {
    "dialogues": Work(8, (192, 512), (64, 256)),
    "long": Work(2, (1536, 3072), (100, 300)),
    "rows": Work(48, (192, 512), (64, 256), {"tokens-per-micro-batch": 8192}),
}
"""Short dialogues in one forward pass, as many pairs as TRL's default; long shared prompts; packed rows of 8k."""
TINY_WORK = {
    "dialogues": Work(4, (8, 24), (4, 12)),
    "long": Work(2, (48, 96), (4, 12)),
    "rows": Work(12, (8, 24), (4, 12), {"tokens-per-micro-batch": 128}),
}
DENSE_BF16 = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
)
"""FLOP/s without sparsity, by a part of the card's name, as NVIDIA states them; the first that fits counts."""


def device_of(cpu: bool) -> str:
    """Where the part runs.

    Raises:
        SystemExit: on a GPU, and there is none.
    """
    import torch

    if not cpu and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: give --cpu to try the check without one")
    return "cpu" if cpu else "cuda"


def random_pairs(count: int, vocabulary: int, prompt: tuple[int, int], response: tuple[int, int]) -> list[Pair]:
    """Token ids of random lengths within the bounds, the same on every machine."""
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(draw.randint(*bounds))]

    return [(tokens(prompt), tokens(response), tokens(response)) for _ in range(count)]


def random_model(shape: dict[str, Any], device: str) -> PreTrainedModel:
    """A llama of the shape, in fp32, made where it is used: nothing is written or copied."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**shape, max_position_embeddings=8192, pad_token_id=0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert isinstance(model, transformers.PreTrainedModel)
    return model


def unique_tokens(pairs: Sequence[Pair]) -> int:
    """Tokens with each prompt counted once."""
    return sum(len(part) for pair in pairs for part in pair)


def operations(shape: dict[str, Any], pairs: Sequence[Pair], rank: int = 0) -> int:
    """Operations that a step over the pairs needs: each prompt once, the head on response tokens only, nothing
    recomputed, and of attention what a causal mask leaves.

    A weight that is trained costs 6 of them a token (forward, and gradients of its input and of itself), a frozen one
    4; attention costs two products forward and four backward.

    Args:
        rank: of an adapter on all linear layers, or 0 for full fine-tuning.
    """
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    inner = shape["intermediate_size"]
    maps = [(width, width), (width, keys), (width, keys), (width, width), (width, inner), (width, inner)]
    maps.append((inner, width))
    weights = layers * sum(a * b for a, b in maps)
    adapter = layers * sum(rank * (a + b) for a, b in maps)
    each = 4 if rank else 6
    head = width * shape["vocab_size"]
    total = 0
    for prompt, *responses in pairs:
        answers = sum(map(len, responses))
        seen = _triangle(len(prompt)) + sum(len(r) * len(prompt) + _triangle(len(r)) for r in responses)
        total += (each * weights + 6 * adapter) * (len(prompt) + answers) + each * head * answers
        total += 12 * width * layers * seen
    return total


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


def dense_peak(card: str) -> float | None:
    """Dense bf16 FLOP/s of a card of this name, or None."""
    for name, rate in DENSE_BF16:
        if all(re.search(rf"\b{word}\b", card) for word in name.split()):
            return rate
    return None


def product_rate(device: str, size: int = 8192, attempts: int = 10) -> float:
    """FLOP/s of a bf16 product of square matrices, at best."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(attempts):
        settle(device)
        began = time.perf_counter()
        torch.mm(left, right)
        settle(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def settle(device: str) -> None:
    """Wait for the GPU, if it is one."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
