"""Pretrain the sandbox's model: ``python -m alignzoo_sandbox.pretrain --out DIR [--seed 0]``.

The model that ships with the package was trained by this script with its defaults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo_sandbox.corpus import Chat, chats
from alignzoo_sandbox.evaluate import MAX_NEW_TOKENS, evaluate
from alignzoo_sandbox.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

STEPS = 1000
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP = 100
WEIGHT_DECAY = 0.01
MAX_LENGTH = 256
TOKENIZER_CHATS = 20_000
_BATCHES_SORTED_TOGETHER = 20


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of about a million parameters, fp32."""
    return llama(
        tokenizer,
        MAX_NEW_TOKENS,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        max_position_embeddings=MAX_LENGTH,
    )


def llama(tokenizer: PreTrainedTokenizerFast, max_new_tokens: int, **sizes: Any) -> LlamaForCausalLM:
    """A fresh Llama with four heads and tied embeddings, fp32, that answers greedily.

    Args:
        max_new_tokens: of an answer.
        sizes: of its config.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = False
    model.generation_config.max_new_tokens = max_new_tokens
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def _render(tokenizer: PreTrainedTokenizerFast, drawn: Sequence[Chat]) -> list[list[int]]:
    turns = [
        [{"role": "user", "content": request}, {"role": "assistant", "content": answer}] for request, answer in drawn
    ]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches ``(input_ids, labels)`` of shape ``(BATCH, longest)``, of similar lengths to reduce padding."""
    import torch

    stream = chats(rng)
    while True:
        rows = sorted(
            _render(
                tokenizer,
                list(itertools.islice(stream, BATCH * _BATCHES_SORTED_TOGETHER)),
            ),
            key=len,
        )
        starts = list(range(0, len(rows), BATCH))
        rng.shuffle(starts)
        for start in starts:
            batch = rows[start : start + BATCH]
            longest = len(batch[-1])
            pad = tokenizer.pad_token_id
            ids = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
            yield ids, ids.masked_fill(ids == pad, -100)


def train(
    model: LlamaForCausalLM,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    weight_decay: float = WEIGHT_DECAY,
) -> float:
    """Next-token training with a warm-up and a cosine decay to zero; returns the last step's loss (nats per token)."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        weight_decay=weight_decay,
        fused=True,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, steps // 2), steps)
    loss = float("nan")
    model.train()
    for step, (ids, labels) in enumerate(itertools.islice(batches, steps), start=1):
        # Padding is on the right and attention is causal, so real tokens never see it: no mask needed.
        out = model(input_ids=ids, labels=labels, use_cache=False)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss = float(out.loss.detach())
        if step % max(1, steps // 20) == 0:
            print(f"step {step:5d}/{steps}  loss {loss:.4f}", flush=True)
    model.eval()
    return loss


def pretrain(out: Path, seed: int = 0, steps: int = STEPS) -> dict[str, Any]:
    """Train tokenizer and model, save both and ``provenance.json`` under ``out``; returns that file's content."""
    import torch

    started = time.perf_counter()
    torch.manual_seed(seed)
    rng = random.Random(seed)
    texts = (text for chat in itertools.islice(chats(rng), TOKENIZER_CHATS) for text in chat)
    tokenizer = train_tokenizer(texts, MAX_LENGTH)
    model = build_model(tokenizer)
    loss = train(model, _batches(tokenizer, rng), steps)
    seconds = time.perf_counter() - started
    rates = evaluate(model, tokenizer)
    about = {"script": "python -m alignzoo_sandbox.pretrain", "seed": seed, "steps": steps}
    return save(out, model, tokenizer, about, loss, seconds, rates)


def save(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    about: Mapping[str, Any],
    loss: float,
    seconds: float,
    rates: Mapping[str, float],
) -> dict[str, Any]:
    """Save model, tokenizer and ``provenance.json``, which begins with ``about``; returns that file's content.

    Args:
        loss: of the last step, nats per token.
        seconds: of training.
        rates: of the evaluation.
    """
    import tokenizers
    import torch
    import transformers

    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    provenance = {
        **about,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "parameters": model.num_parameters(),
        "final_loss": round(loss, 4),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "rates": rates,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return provenance


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m alignzoo_sandbox.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help=f"optimizer steps of {BATCH} chats (default {STEPS})",
    )
    options = parser.parse_args(arguments)
    print(json.dumps(pretrain(options.out, options.seed, options.steps), indent=2))


if __name__ == "__main__":
    main()
