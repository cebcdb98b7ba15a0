"""Models and tokens as both sides are given them, made in a process of its own; :mod:`against_trl` starts it.

A model is a folder with fp32 weights and a tokenizer. Tokens are a JSON file of columns, see :class:`measured.Job`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scenarios import LARGE_VOCABULARY, SCENARIOS

LONG_PROMPT, SHORT_RESPONSE = 1500, 100
"""Least tokens of a long prompt, and most tokens of a response to it."""
Columns = dict[str, list[list[int]]]


def save_given(name: str, folder: Path) -> None:
    """Any model that ``alignzoo run`` takes."""
    from alignzoo.model.load import load_policy, load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings

    source, settings = find_model(name), Settings(model=name)
    with whole(folder) as partial:
        load_policy(source, settings).save_pretrained(partial)
        load_tokenizer(source, settings).save_pretrained(partial)


def save_random(folder: Path, shape: dict[str, Any], tokenizer: Path) -> None:
    """A llama with random weights, the same whenever it is made, and with the tokenizer of another model."""
    import torch
    import transformers

    heads = shape["hidden_size"] // 64
    keys = heads // 3 if heads % 3 == 0 else heads
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=True,
        max_position_embeddings=8192, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with whole(folder) as partial:
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(partial)
        transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(partial)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Inside, a folder to write to; ``folder`` is there only once all of it is."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def tokens_of(data: str, model: str, scenario: str, count: int) -> Columns:
    """``count`` pairs in the scenario's shape."""
    from alignzoo.data.prepare import prepare
    from alignzoo.model.load import load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.plan.settings import Settings

    settings = Settings(model=model)
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}
    rows = prepare(data, load_tokenizer(find_model(model), settings), **limits).dataset
    pairs = ((prompt, *replies) for prompt, replies in zip(rows["prompt_ids"], rows["response_ids"], strict=True))
    shape = SCENARIOS[scenario].shape
    taken = long_prompts(pairs, count) if shape == "long" else [pair for pair, _ in zip(pairs, range(count))]  # noqa: B905
    if len(taken) < count:
        raise SystemExit(f"{scenario} takes {count} pairs, and {data} gives {len(taken)}")
    if shape == "bare":
        taken = [(prompt[-1 - i % 4 :], chosen, rejected) for i, (prompt, chosen, rejected) in enumerate(taken)]
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return dict(zip(names, map(list, zip(*taken, strict=True)), strict=True))


def long_prompts(pairs: Any, count: int) -> list[tuple[list[int], ...]]:
    """Dialogues one after another are the prompt of the one that comes after them."""
    made: list[tuple[list[int], ...]] = []
    before: list[int] = []
    for prompt, chosen, rejected in pairs:
        if len(before) + len(prompt) < LONG_PROMPT:
            before += [*prompt, *chosen]
            continue
        cut = chosen[:SHORT_RESPONSE], rejected[:SHORT_RESPONSE]
        if cut[0] != cut[1]:
            made.append(((before + prompt)[-LONG_PROMPT:], *cut))
            before = []
        if len(made) == count:
            break
    return made


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scenario", nargs="*", default=[], metavar="NAME=PAIRS")
    parser.add_argument("--random", nargs="*", default=[], metavar="NAME=SHAPE", help="models, their shapes as JSON")
    arguments = parser.parse_args(words)
    models = arguments.folder / "models"
    if not (models / "given").is_dir():
        save_given(arguments.model, models / "given")
    for name, count in (word.split("=") for word in arguments.scenario):
        columns = tokens_of(arguments.data, str(models / "given"), name, int(count))
        (arguments.folder / f"{name}.json").write_text(json.dumps(columns))
        if SCENARIOS[name].model == "large-vocabulary" and not (models / "large-vocabulary").is_dir():
            save_random(models / "large-vocabulary", LARGE_VOCABULARY, models / "given")
    for name, shape in (word.split("=", 1) for word in arguments.random):
        if not (models / name).is_dir():
            save_random(models / name, json.loads(shape), models / "given")


if __name__ == "__main__":
    main()
