"""How well `alignzoo plan` foretells the memory of a run on this machine.

    python benchmarks/plan_accuracy.py [--only WORD] [--give-back]

Each case is a model with random weights. It is planned from its config alone, and then trained for a few steps by a
process of its own, whose peak (``ru_maxrss``) less what it held after its imports is the measured one. The error is
(predicted − measured) / measured.

glibc holds blocks that were freed, of which a plan knows the average share. With --give-back the process
returns every block of 1 MiB or more at once (MALLOC_MMAP_THRESHOLD_), so that its peak is that of its tensors, and the
plan counts nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GIB = 2.0**30
SHAPES: dict[str, dict[str, Any]] = {
    "30M, 32k": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "vocab_size": 32000},
    "60M, 100k": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "vocab_size": 100000},
    "135M, 49k": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152},
}
HEADS = {384: (6, 2), 576: (9, 3)}
"""Of attention, and of its keys, by hidden size."""
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""The environment of a process that holds no freed memory."""
PROMPT, RESPONSE = (40, 80), (25, 60)
"""Words of a text, drawn from here to there; two to three tokens each."""
PAIRS, STEPS = 16, 2
CASES: list[tuple[str, dict[str, Any]]] = [
    ("30M, 32k", {}),
    ("30M, 32k", {"packing": False}),
    ("30M, 32k", {"optimizer": "sgd"}),
    ("30M, 32k", {"precision": "bf16"}),
    ("30M, 32k", {"lora": {"r": 8}}),
    ("30M, 32k", {"lora": {"r": 8}, "precision": "bf16", "packing": False}),
    ("30M, 32k", {"micro-batch-size": 8}),
    ("30M, 32k", {"activation-checkpointing": True}),
    ("30M, 32k", {"reference-cache": False}),
    ("30M, 32k", {"geometry": "sam", "micro-batch-size": 2}),
    ("60M, 100k", {}),
    ("60M, 100k", {"optimizer": "sgd", "packing": False}),
    ("60M, 100k", {"lora": {"r": 8}}),
    ("135M, 49k", {}),
    ("135M, 49k", {"packing": False, "precision": "bf16"}),
    ("135M, 49k", {"lora": {"r": 8}, "activation-checkpointing": True}),
    ("135M, 49k", {"geometry": ["sam", "ema"], "micro-batch-size": 2}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases with this word in them")
    parser.add_argument("--give-back", action="store_true", help="measure with an allocator that keeps nothing")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(json.loads(arguments.case))))
        return
    print(f"{'model':10} {'settings':52} {'predicted':>9} {'measured':>9} {'error':>7}  GiB")
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "pairs.jsonl")
        models = {
            name: write_model(Path(folder) / f"model{i}", shape) for i, (name, shape) in enumerate(SHAPES.items())
        }
        for number, (name, settings) in enumerate(CASES):
            words = " ".join(f"{key}={value}" for key, value in settings.items()) or "defaults"
            if arguments.only not in f"{name} {words}":
                continue
            recipe = recipe_of(models[name], data, settings, Path(folder) / f"run{number}")
            returned = {"give_back": arguments.give_back}
            predicted, measured = predict(recipe, **returned), run_apart(recipe, **returned)
            errors.append((predicted - measured) / measured)
            print(
                f"{name:10} {words:52} {predicted / GIB:9.3f} {measured / GIB:9.3f} {100 * errors[-1]:+6.1f}%",
                flush=True,
            )
    if errors:
        print(
            f"largest error {100 * max(map(abs, errors)):.1f} %, mean {100 * sum(map(abs, errors)) / len(errors):.1f} %"
        )


def recipe_of(model: Path, data: Path, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    shared = {"micro-batch-size": 4, "eval-share": 0, "save-every": 0, "warmup-steps": 0}
    return {
        **shared,
        "model": str(model),
        "data": str(data),
        "batch-size": PAIRS // STEPS,
        "max-steps": STEPS,
        "out": str(out),
        **settings,
    }


def predict(recipe: dict[str, Any], *, gpu: float | None = None, give_back: bool = False) -> float:
    """Bytes at the peak, from config and data alone; on a CPU, or on a GPU with so many bytes free: there of tensors,
    without context and allocator. ``give_back``: with an allocator that holds nothing."""
    from alignzoo_estimate.estimate import Hardware, Model, Situation, estimate
    from alignzoo_estimate.lengths import of_data
    from alignzoo_estimate.shapes import read_config

    from alignzoo.distributed.launch import variables
    from alignzoo.plan.recipe import Layer, flatten
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.report import Reporter

    plan = require(resolve([Layer("python", flatten(recipe, "the case"))]))
    hardware = Hardware(1, gpu is not None, gpu, None, "none")
    data = of_data(plan, Reporter())
    with variables(GIVING_BACK if give_back else {}):
        found = estimate(Situation(plan, Model(read_config(plan.settings.model)), hardware, data))
    beside = {"allocator and context"} if gpu is not None else set()
    return max(moment.total - sum(moment.parts.get(part, 0.0) for part in beside) for moment in found.moments)


def run_apart(recipe: dict[str, Any], *, give_back: bool) -> float:
    """The measured bytes, from a new process with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ALIGNZOO_CACHE": recipe["out"] + "-cache"}
    environment |= GIVING_BACK if give_back else {}
    ended = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(recipe)], capture_output=True, text=True, env=environment
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def measure(recipe: dict[str, Any]) -> float:
    """Train in this process; its peak less what it held before."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import alignzoo
    import alignzoo.train.begin

    torch.set_num_threads(1)
    before = _resident()
    alignzoo.run(recipe)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0 - before


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def write_model(folder: Path, shape: dict[str, Any]) -> Path:
    """A llama with random weights, with the sandbox's tokenizer."""
    import transformers
    from alignzoo_sandbox import MODEL_PATH

    heads, keys = HEADS[shape["hidden_size"]]
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=True, bos_token_id=0
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MODEL_PATH).save_pretrained(folder)
    return folder


def write_data(path: Path) -> Path:
    """Pairs of random words that the sandbox's tokenizer knows."""
    from alignzoo_sandbox import preference_rows

    draw = random.Random(0)
    texts = [str(row["prompt"]) for row in preference_rows("train", 200)]
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})

    def text(lengths: Sequence[int]) -> str:
        return " ".join(draw.choices(words, k=draw.randint(*lengths)))

    rows = [{"prompt": text(PROMPT), "chosen": text(RESPONSE), "rejected": text(RESPONSE)} for _ in range(PAIRS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


if __name__ == "__main__":
    main()
