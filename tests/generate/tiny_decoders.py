"""Tiny models of several architectures, with random weights, and a tokenizer of single bytes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
)

from alignzoo.generate.decoding import Decoding, Response

EOS, PAD, TURN = 256, 257, 258
VOCABULARY = 259
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "initializer_range": 0.6,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**_SIZES),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        eos_token_id=EOS,
        bos_token_id=None,
        initializer_range=0.6,
    ),
    "opt": lambda: OPTConfig(
        **{name: _SIZES[name] for name in _SIZES if not name.startswith(("num_key", "intermediate", "init"))},
        ffn_dim=48,
        word_embed_proj_dim=32,
        init_std=0.6,
    ),
    "qwen2-sliding": lambda: Qwen2Config(**_SIZES, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "gemma2-sliding": lambda: Gemma2Config(**{**_SIZES, "initializer_range": 0.2}, head_dim=8, sliding_window=6),
    "phi3": lambda: Phi3Config(**_SIZES),  # prepares its inputs in its own way
    "mamba": lambda: MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        eos_token_id=EOS,
        bos_token_id=None,
        initializer_range=0.6,
    ),
}


def build(architecture: str) -> Any:
    """A model in float64, in which no two tokens are equally probable.

    Gemma 2 is one in float32: its softmax is, and the lowest float64, which masks, is -inf there, so that padding
    would become NaN.
    """
    torch.manual_seed(3)
    dtype = torch.float32 if "gemma" in architecture else torch.float64
    return AutoModelForCausalLM.from_config(CONFIGS[architecture](), dtype=dtype).eval()


def alone(model: Any, tokenizer: Any, prompt: list[int], decoding: Decoding, **changes: Any) -> Response:
    """The response by transformers' ``generate`` for one prompt."""
    tokens = torch.tensor([prompt])
    made = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        pad_token_id=PAD,
        **{"eos_token_id": EOS, **changes},
    )
    new = made[0, len(prompt) :].tolist()
    ends = changes.get("eos_token_id", EOS)
    ended = new[-1] in (ends if isinstance(ends, list) else [ends])
    return Response(tokenizer.decode(new, skip_special_tokens=True), len(new), ended)
