"""Pretrain the model of a world: ``python -m alignzoo_world2.pretrain --world N --out DIR``.

The models that ship with the package were trained by this script with its defaults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo_world2.corpus import chats
from alignzoo_world2.evaluate import CONFIG, MAX_NEW_TOKENS, evaluate
from alignzoo_world2.tokenizer import MAX_LENGTH, build_tokenizer
from alignzoo_world2.world import world as world_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

STEPS = 1400
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP = 100
WEIGHT_DECAY = 0.05


def build_model(tokenizer: PreTrainedTokenizerFast, world: int) -> LlamaForCausalLM:
    """A fresh Llama of about 0.2 million parameters, fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        initializer_range=0.06,  # learns several times faster than from 0.02
        intermediate_size=288,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    setattr(config, CONFIG, world)
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = False
    model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def _batches(tokenizer: PreTrainedTokenizerFast, world: int, rng: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches ``(input_ids, labels)`` of shape ``(BATCH, longest)``; labels are those of the answers alone."""
    import torch

    stream = chats(world_of(world), rng)
    pad = tokenizer.pad_token_id
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    while True:
        rows = []
        for request, answer in itertools.islice(stream, BATCH):
            rows.append(f"<|bos|><|user|>{request}<|end|><|assistant|>{answer}<|end|>")
        encoded = tokenizer(rows, add_special_tokens=False)["input_ids"]
        longest = max(map(len, encoded))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in encoded])
        answers = (ids == assistant).cumsum(1).bool() & (ids != pad) & (ids != assistant)
        yield ids, ids.masked_fill(~answers, -100)


def train(model: LlamaForCausalLM, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
    """Next-token training with a warm-up and a cosine decay to zero; returns the last step's loss (nats per token)."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
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


def pretrain(out: Path, world: int = 0, steps: int = STEPS) -> dict[str, Any]:
    """Train a world's model, save it in fp16 with tokenizer and ``provenance.json``; returns that file's content."""
    import tokenizers
    import torch
    import transformers

    started = time.perf_counter()
    torch.manual_seed(world)
    tokenizer = build_tokenizer(world)
    model = build_model(tokenizer, world)
    loss = train(model, _batches(tokenizer, world, random.Random(f"pretrain:{world}")), steps)
    seconds = time.perf_counter() - started
    rates = evaluate(model.half().float(), tokenizer)  # as the weights are stored
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    provenance = {
        "script": f"python -m alignzoo_world2.pretrain --world {world}",
        "world": world,
        "steps": steps,
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
    parser = argparse.ArgumentParser(prog="python -m alignzoo_world2.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--world", type=int, default=0, help="seed of the world: its words, intents and splits")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps of {BATCH} chats (default {STEPS})")
    options = parser.parse_args(arguments)
    print(json.dumps(pretrain(options.out, options.world, options.steps), indent=2))


if __name__ == "__main__":
    main()
