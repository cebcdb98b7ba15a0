"""Pretrain the model of a world: ``python -m alignzoo_world2.pretrain --world N --out DIR``.

The models that ship with the package were trained by this script with its defaults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo_sandbox.pretrain import BATCH, llama, save, train

from alignzoo_world2.corpus import chats
from alignzoo_world2.evaluate import CONFIG, MAX_NEW_TOKENS, evaluate
from alignzoo_world2.tokenizer import MAX_LENGTH, build_tokenizer
from alignzoo_world2.world import world as world_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

STEPS = 1400
WEIGHT_DECAY = 0.05


def build_model(tokenizer: PreTrainedTokenizerFast, world: int) -> LlamaForCausalLM:
    """A fresh Llama of about 0.2 million parameters, fp32."""
    return llama(
        tokenizer,
        MAX_NEW_TOKENS,
        hidden_size=96,
        initializer_range=0.06,  # learns several times faster than from 0.02
        intermediate_size=288,
        num_hidden_layers=2,
        max_position_embeddings=MAX_LENGTH,
        **{CONFIG: world},
    )


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


def pretrain(out: Path, world: int = 0, steps: int = STEPS) -> dict[str, Any]:
    """Train a world's model, save it in fp16 with tokenizer and ``provenance.json``; returns that file's content."""
    import torch

    started = time.perf_counter()
    torch.manual_seed(world)
    tokenizer = build_tokenizer(world)
    model = build_model(tokenizer, world)
    loss = train(model, _batches(tokenizer, world, random.Random(f"pretrain:{world}")), steps, WEIGHT_DECAY)
    seconds = time.perf_counter() - started
    rates = evaluate(model.half().float(), tokenizer)  # as the weights are stored
    about = {"script": f"python -m alignzoo_world2.pretrain --world {world}", "world": world, "steps": steps}
    return save(out, model.half(), tokenizer, about, loss, seconds, rates)


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
