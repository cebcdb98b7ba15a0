"""Tiny random models of real architectures, and batches for them, small enough for a test in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers

from alignzoo.data.collate import TokenBatch, collate
from alignzoo.testing.sample import GROUPS

if TYPE_CHECKING:
    from alignzoo.data.shapes import Shape

VOCAB = 64
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
NEOX = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**{**SMALL, "head_dim": 16, "num_key_value_heads": 4}),
    "mistral": lambda: transformers.MistralConfig(**SMALL),
    "gemma2": lambda: transformers.Gemma2Config(**SMALL, head_dim=16),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SMALL, head_dim=16),
    "phi3": lambda: transformers.Phi3Config(**SMALL),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**NEOX),
    "gpt2": lambda: transformers.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2),
}


def tiny_model(name: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """A random model of the family, in eval mode."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]())
    return model.to(dtype).eval()


def with_adapter(model: Any, *, seed: int = 0) -> Any:
    """The model under a new LoRA adapter of rank 2 on all linear layers, in the model's dtype."""
    from peft import LoraConfig, get_peft_model

    dtype = next(model.parameters()).dtype
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).to(dtype)


def shifted(model: Any, by: float = 0.3) -> Any:
    """A copy of the model somewhere else in weight space."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += (by * parameter.double().std().nan_to_num(0.1) * noise).to(parameter.dtype)
    return other


def random_rows(sizes: Sequence[int], *, seed: int = 0, first_id: int = 0) -> list[dict[str, Any]]:
    """Random tokenised rows with so many responses each, of different lengths."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (), generator=draw))
        return torch.randint(3, VOCAB, (length,), generator=draw).tolist()

    return [
        {"row_id": first_id + i, "prompt_ids": tokens(3, 9), "response_ids": [[*tokens(2, 8), 2] for _ in range(size)]}
        for i, size in enumerate(sizes)
    ]


def pair_rows(count: int, *, seed: int = 0, first_id: int = 0) -> list[dict[str, Any]]:
    """Random tokenised pairs of different lengths."""
    return random_rows([2] * count, seed=seed, first_id=first_id)


def scored_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """:func:`pair_rows` with what data may bring beside: scores, and groups ``g0``, ``g1``, ``g2``."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 2, generator=draw).tolist()
    rows = pair_rows(count, seed=seed)
    return [{**row, "score": scores[i], "group": f"g{i % GROUPS}"} for i, row in enumerate(rows)]


def batch_of(
    rows: Sequence[dict[str, Any]], *, shape: Shape = "pairs", kl: Sequence[Sequence[Sequence[int]]] | None = None
) -> TokenBatch:
    """The rows as one batch."""
    return collate(list(rows), 0, shape=shape, kl=kl)


def cut(rows: Sequence[dict[str, Any]], size: int) -> list[TokenBatch]:
    """The rows as micro-batches of ``size`` rows."""
    return [batch_of(rows[i : i + size]) for i in range(0, len(rows), size)]
