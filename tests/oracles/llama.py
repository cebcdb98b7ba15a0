"""The tiny llama in float64 on which ShaPO's trainer ran, its probe, and the pairs of every step."""

from __future__ import annotations

import random
from typing import Any

import torch
import transformers
from problem import numbers

SIZES = {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
PAIRS, MICRO_BATCHES = 4, 2
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
GPT2 = {
    "vocab_size": 24,
    "n_embd": 16,
    "n_inner": 20,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**NEOX),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
}


def model(family: str = "llama", *, seed: int = 100) -> Any:
    """Matrices 0.3 times the numbers of these seeds, one tensor a seed in the model's order; the rest as it comes."""
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).double().eval()
    if family == "llama":
        _norms_in_float64(made)
    with torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            if weight.dim() > 1:
                weight.copy_(0.3 * numbers(seed + number, *weight.shape))
    return made


def _norms_in_float64(made: Any) -> None:
    """The family's own go through float32, which leaves 1e-8 behind."""

    def norm() -> torch.nn.Module:
        return torch.nn.RMSNorm(SIZES["hidden_size"], made.config.rms_norm_eps, dtype=torch.float64)

    for layer in made.model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = norm(), norm()
    made.model.norm = norm()


def head() -> torch.Tensor:
    """The probe's two rows (2, hidden) in fp32: safe, unsafe."""
    return numbers(90, 2, SIZES["hidden_size"]).float()


def rows(step: int) -> list[dict[str, Any]]:
    """The tokenised pairs of a step."""
    draw = random.Random(1000 + step)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(3, SIZES["vocab_size"]) for _ in range(draw.randint(low, high))]

    return [
        {
            "row_id": pair,
            "prompt_ids": [1, *tokens(2, 4)],
            "response_ids": [[*tokens(1, 5), 2], [*tokens(1, 5), 2]],
        }
        for pair in range(PAIRS)
    ]


def seen_from_outside(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Two numbers for each tensor, (n, 2): its product with a fixed vector, and its length."""
    found = []
    for gradient in gradients:
        flat = gradient.detach().double().flatten()
        fixed = torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64))
        found.append(torch.stack([flat @ fixed, flat.norm()]))
    return torch.stack(found)


def texts() -> list[list[int]]:
    """General texts for NSPO: eight tokens, so that eight directions of every map at most are not free."""
    draw = random.Random(2000)
    return [[draw.randrange(3, SIZES["vocab_size"]) for _ in range(length)] for length in (3, 5)]


def moved(made: Any, step: int) -> None:
    """Every weight somewhere else, as an optimizer's step leaves them."""
    with torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            weight += 0.05 * numbers(500 + 50 * step + number, *weight.shape)
