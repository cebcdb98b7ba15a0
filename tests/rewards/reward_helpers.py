"""A tiny saved reward model with a chat template of its own, and conversations to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from alignzoo_sandbox import MODEL_PATH

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} </{{ message['role'] }}>{% endfor %}"
)


def save_classifier(
    folder: Path, *, seed: int = 0, labels: int = 1, template: str | None = TEMPLATE, pad: bool = True
) -> Path:
    """A random llama with a score head and the sandbox's tokenizer, whose template it replaces."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_PATH)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        num_labels=labels,
    )
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(folder: Path, prompt: str, reply: str, *, template: bool = True) -> float:
    """The classifier's output on one conversation, without any batch."""
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if template:
        text = f"<user> {prompt} </user><assistant> {reply} </assistant>"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(prompt + reply)["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])
