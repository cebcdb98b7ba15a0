"""Random models of many families in which neighbours and distances matter, and rows of any number of responses."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from alignzoo.data.collate import TokenBatch
from alignzoo.testing.tiny import CONFIGS, SMALL, VOCAB, batch_of, random_rows

WINDOW = 6
GATED = {**SMALL, "num_hidden_layers": 4}
MORE: dict[str, Any] = {
    "mistral-window": lambda: transformers.MistralConfig(**SMALL, sliding_window=WINDOW),
    "gemma2-window": lambda: transformers.Gemma2Config(**GATED, head_dim=16, sliding_window=WINDOW),
    "gemma3-window": lambda: transformers.Gemma3TextConfig(
        **GATED, head_dim=16, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "olmo2": lambda: transformers.Olmo2Config(**SMALL),
    "cohere": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.3),
    "granite": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=3.0),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **SMALL, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **SMALL, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32,
    ),
}  # fmt: skip
ALL = {**CONFIGS, **MORE}
UNPACKED: dict[str, Any] = {
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4),
    "mpt": lambda: transformers.MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4),
    "falcon-alibi": lambda: transformers.FalconConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True
    ),
    "mamba": lambda: transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2),
    "llama4": lambda: transformers.Llama4TextConfig(
        **SMALL,
        head_dim=8,
        intermediate_size_mlp=48,
        num_local_experts=2,
        attention_chunk_size=4,
        attn_temperature_tuning=False,
    ),
}
NARROW = ("cohere", "qwen3-moe", "gpt-oss", "gemma2-window", "gemma2")
"""Of which transformers computes parts in fp32 also in a float64 model."""
ROWS = random_rows([2, 1, 3, 2], seed=3)
OTHERS = [row["response_ids"] for row in random_rows([2, 1, 3, 2], seed=11)]
"""Mismatched responses to the prompts of :data:`ROWS`."""
KINDS: dict[str, list[int]] = {"one": [1, 1, 1], "two": [2, 2, 2], "three": [3, 3], "mixed": [1, 3, 2]}


def mixed_batch() -> TokenBatch:
    """One to three responses to each prompt, and as many mismatched ones."""
    return batch_of(ROWS, shape="ranked", kl=OTHERS)


def rows_of(kind: str, *, kl: bool) -> tuple[list[dict[str, Any]], list[list[list[int]]] | None, TokenBatch]:
    """Rows with so many responses, mismatched ones if asked for, and their batch."""
    rows, sizes = random_rows(KINDS[kind], seed=5), KINDS[kind]
    others = [row["response_ids"] for row in random_rows(sizes, seed=6)] if kl else None
    return rows, others, batch_of(rows, shape="ranked", kl=others)


def model_of(family: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A random model that a token's neighbours and its distance to them matter to."""
    torch.manual_seed(0)
    config = {**ALL, **UNPACKED}[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if family not in UNPACKED:
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight.normal_(std=0.3)
    return model


def exact_model(family: str) -> Any:
    """The same in float64, without norms that transformers computes in fp32."""
    model = model_of(family, dtype=torch.float64)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("Norm") and not isinstance(child, torch.nn.LayerNorm):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=1e-5, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model


def gradients_of(value: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    """The gradients of a number by the model's weights."""
    weights = dict(model.named_parameters())
    return dict(zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True))


def same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], near: float) -> None:
    """Equal, relative to the largest number of all."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        assert float((gradient - expected[name]).abs().max()) <= near * largest, name
