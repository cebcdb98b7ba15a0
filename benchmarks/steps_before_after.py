"""Whole packed training steps of two checkouts in turns: time, memory and losses.

``python benchmarks/steps_before_after.py --before BASE/.venv/bin/python --after .venv/bin/python``

Each measurement is a process of one checkout's interpreter that calls ``alignzoo.run`` on the same model, pairs and
recipe; the checkouts take turns, so that a change of the machine's speed meets both. A step's seconds are those that
the run writes to ``metrics.jsonl``, the first ones left out; memory is the largest resident set (VmHWM) of the process.
Only the recipe, ``metrics.jsonl`` and ``alignzoo.run`` are relied on, which every version has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 2000
WARM_UP = 2
"""First steps of a run, which are not measured."""
MB = 1e6


@dataclass(frozen=True)
class Size:
    """A random llama, so many pairs a step, and words of prompts and responses."""

    shape: dict[str, Any]
    pairs: int
    prompt: tuple[int, int]
    response: tuple[int, int]
    steps: int


SMOLLM = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152,
}  # fmt: skip
SIZES = {
    "tiny": Size(
        {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 4, "vocab_size": WORDS + 2}, 8, (20, 60), (10, 60), 30,
    ),
    "smollm-4": Size({**SMOLLM, "num_hidden_layers": 4}, 4, (40, 160), (20, 120), 3),
    "smollm": Size({**SMOLLM, "num_hidden_layers": 30}, 4, (40, 160), (20, 120), 3),
}  # fmt: skip
"""``smollm`` has the shape of SmolLM2-135M, ``smollm-4`` has 4 of its 30 layers."""
GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {"geometry": "plain"},
    "shapo-token": {"geometry": {"name": "shapo-token", "interval": 1, "select": "random"}},
}


def save_model(folder: Path, size: Size) -> None:
    """The llama with a tokenizer of whole words."""
    import tokenizers
    import torch
    import transformers

    vocabulary = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i + 2 for i in range(WORDS)}}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**size.shape, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_data(path: Path, size: Size) -> None:
    """Pairs of random words, as many as a run takes."""
    draw = random.Random(0)

    def text(bounds: tuple[int, int]) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(*bounds)))

    with path.open("w", encoding="utf-8") as lines:
        for _ in range(size.pairs * (size.steps + WARM_UP)):
            row = {
                "prompt": text(size.prompt),
                "chosen": f" {text(size.response)}",
                "rejected": f" {text(size.response)}",
            }
            lines.write(json.dumps(row) + "\n")


def recipe(size: Size, geometry: str, model: Path, data: Path) -> dict[str, Any]:
    """Full fine-tuning by DPO in one micro-batch a step."""
    return {
        **GEOMETRIES[geometry],
        "loss": "dpo",
        "model": str(model),
        "data": str(data),
        "batch-size": size.pairs,
        "micro-batch-size": size.pairs,
        "max-steps": size.steps + WARM_UP,
        "eval-share": 0,
        "lr": 1e-5,
        "save-every": 0,
    }


def work(given: dict[str, Any]) -> None:
    """In a process of one checkout: run the recipe, print what it took."""
    import torch

    import alignzoo

    torch.set_num_threads(given["threads"])
    alignzoo.run({**given["recipe"], "out": given["out"]})
    lines = (Path(given["out"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [line for line in map(json.loads, lines) if "step_seconds" in line]
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    measured = [line["step_seconds"] for line in steps[WARM_UP:]]
    print(json.dumps({"seconds": measured, "peak": peak, "losses": [line["loss"] for line in steps]}))


def measure(python: str, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One process, in an empty folder and with caches of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        caches = {"HF_HOME": f"{scratch}/hf", "ALIGNZOO_CACHE": f"{scratch}/cache", "HF_HUB_OFFLINE": "1"}
        words = [python, str(Path(__file__).resolve()), "--work", json.dumps({**given, "out": f"{scratch}/out"})]
        ended = subprocess.run(words, capture_output=True, text=True, cwd=scratch, env={**os.environ, **caches})
    if ended.returncode:
        raise SystemExit(f"{python} failed:\n{ended.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def alternate(pythons: dict[str, str], given: dict[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    """So many rounds of both checkouts, the first one of a round in turns; medians, and the median ratio of a round."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in pythons}
    for round_ in range(rounds):
        for side in sorted(pythons, reverse=round_ % 2 == 0):
            found[side].append(measure(pythons[side], given, folder))
            print(f"  {side}: {statistics.median(found[side][-1]['seconds']):.4f} s", file=sys.stderr, flush=True)
    seconds = {side: [statistics.median(one["seconds"]) for one in runs] for side, runs in found.items()}
    ratios = [after / before for before, after in zip(seconds["before"], seconds["after"], strict=True)]
    losses = [found[side][0]["losses"] for side in ("before", "after")]
    return {
        "seconds": {side: statistics.median(values) for side, values in seconds.items()},
        "fastest": {side: min(min(one["seconds"]) for one in runs) for side, runs in found.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "peak": {side: statistics.median(one["peak"] for one in runs) for side, runs in found.items()},
        "same losses": losses[0] == losses[1],
        "largest difference of losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    """The table."""
    names = ("s/step before", "after", "ratio", "of rounds", "fastest before", "after", "MB before", "after")
    print(f"{'':22s}" + "".join(f"{name:>15s}" for name in names) + "  losses")
    for name, one in results.items():
        seconds, peak, ratios = one["seconds"], one["peak"], one["ratios"]
        same = "equal" if one["same losses"] else f"differ by up to {one['largest difference of losses']:.1e}"
        figures = [f"{seconds['before']:.4f}", f"{seconds['after']:.4f}", f"{one['ratio']:.3f}"]
        figures.append(f"{min(ratios):.2f}-{max(ratios):.2f}")
        figures += [f"{one['fastest'][side]:.4f}" for side in ("before", "after")]
        figures += [f"{peak['before'] / MB:.0f}", f"{peak['after'] / MB:.0f}"]
        print(f"{name:22s}" + "".join(f"{figure:>15s}" for figure in figures) + f"  {same}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", metavar="PYTHON", help="interpreter that the older checkout is installed for")
    parser.add_argument("--after", metavar="PYTHON", default=sys.executable, help="that of the newer one")
    parser.add_argument("--size", nargs="*", choices=SIZES, default=["tiny", "smollm-4"])
    parser.add_argument("--geometry", nargs="*", choices=GEOMETRIES, default=list(GEOMETRIES))
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each checkout")
    parser.add_argument("--steps", type=int, help="measured steps of a process, if not the size's own number")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.work:
        work(json.loads(arguments.work))
        return
    if not arguments.before:
        parser.error("--before PYTHON is needed")
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.size:
            size = SIZES[name]
            if arguments.steps:
                size = Size(size.shape, size.pairs, size.prompt, size.response, arguments.steps)
            model, data = Path(temporary) / name, Path(temporary) / f"{name}.jsonl"
            save_model(model, size)
            write_data(data, size)
            for geometry in arguments.geometry:
                print(f"{name}, {geometry}", file=sys.stderr, flush=True)
                given = {"recipe": recipe(size, geometry, model, data), "threads": arguments.threads}
                pythons = {"before": arguments.before, "after": arguments.after}
                results[f"{name}, {geometry}"] = alternate(pythons, given, arguments.rounds, Path(temporary))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    show(results)


if __name__ == "__main__":
    main()
