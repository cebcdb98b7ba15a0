"""What runs by a command of its own, as a user would type it; generation; and memory against ``alignzoo plan``."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shapes import GIB, RANK, ROOT, SHAPES, Figures, device_of, random_model
from steps import STEPS, given_pairs, release

CLOSE = 1e-4
"""Largest difference of a step's loss between launches, in fp32."""
PLANNED = ("1b dialogues", "1b long", "1b rows", "8b dialogues+checkpointing", "8b long+checkpointing")
"""Measurements whose peak ``alignzoo plan`` foretells, with their shape in front."""


def script(name: str, *, cpu: bool) -> Figures:
    """A benchmark that has a command of its own: its figures and its table."""
    device_of(cpu)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        words = ["--device", "cpu", "--tiny"] if cpu else ["--device", "cuda"]
        printed = spoken([sys.executable, f"benchmarks/{name}.py", *words, "--json", str(file)])
        found = json.loads(file.read_text())
    tables, remarks = tables_of(printed)
    return {"found": found, "table": tables, "shown": remarks[0] if remarks else f"{len(tables)} lines"}


def tables_of(printed: str) -> tuple[list[str], list[str]]:
    """The lines of the Markdown tables in an output, an empty one between tables; and its other lines."""
    tables: list[str] = []
    remarks: list[str] = []
    for line in printed.strip().splitlines():
        if line.startswith("|"):
            tables.append(line)
            continue
        if tables and tables[-1]:
            tables.append("")
        remarks += [line] if line.strip() else []
    return tables, remarks


def spoken(words: list[str], **environment: str) -> str:
    """What a command prints.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    ended = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip()
        raise RuntimeError(f"{' '.join(words[1:6])} … exited {ended.returncode}: {said[-600:]}")
    return ended.stdout


def launch(*, cpu: bool) -> Figures:
    """``alignzoo run`` as one process, and by ``--devices``: the same losses."""
    import torch

    device_of(cpu)
    count = 2 if cpu else torch.cuda.device_count()
    ways = {"alone": [], "ddp": ["--devices", str(count)], "fsdp2": ["--devices", str(count), "--parallel", "fsdp2"]}
    if count > 1:
        ways["ddp"] += ["--parallel", "ddp"]
    else:  # one device has nothing to shard
        del ways["fsdp2"]

    def losses(name: str) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            short = ["--max-steps", "3", "--batch-size", "8", "--micro-batch-size", "4", "--eval-pairs", "4"]
            words = ["run", "--loss", "dpo", "--lr", "1e-4", "--precision", "fp32", "--no-samples", *short, *ways[name]]
            only = {"CUDA_VISIBLE_DEVICES": "0"} if name == "alone" and not cpu else {}
            spoken([sys.executable, "-m", "alignzoo", *words, "--out", f"{folder}/run"], OMP_NUM_THREADS="1", **only)
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    with ThreadPoolExecutor(1 if cpu else len(ways)) as beside:
        found = dict(zip(ways, beside.map(losses, ways), strict=True))
    gaps = {
        name: max(abs(a - b) for a, b in zip(found[name], found["alone"], strict=True))
        for name in ways
        if name != "alone"
    }
    far = [name for name, gap in gaps.items() if not gap <= CLOSE]
    if far:
        raise SystemExit(f"not the losses of one process: {', '.join(far)}; {found}")
    shown = ", ".join(f"{' '.join(ways[name])}: losses of one process to {gap:.0e}" for name, gap in gaps.items())
    return {"losses": found, "gaps": gaps, "shown": shown}


def plan(*, cpu: bool) -> Figures:
    """What ``alignzoo plan`` foretells of the measured steps, from a config and lengths: bytes of tensors."""
    import torch

    device_of(cpu)
    gpu = [] if cpu else ["--gpus", "1", "--gpu-memory", str(torch.cuda.mem_get_info()[1] / GIB)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1 if cpu else len(PLANNED)) as beside:

        def predicted(name: str) -> Figures:
            return foretold(name, gpu, Path(folder) / name)

        names = PLANNED[:1] + PLANNED[-1:] if cpu else PLANNED
        found = dict(zip(names, beside.map(predicted, names), strict=True))
    shown = ", ".join(f"{name} {one['tensors'] / GIB:.2f} GiB" for name, one in found.items())
    return {"found": found, "shown": f"foretold: {shown}"}


def foretold(name: str, gpu: list[str], folder: Path) -> Figures:
    """The peak of a measurement: all of it, and without what allocator and context add to tensors."""
    import transformers

    folder.mkdir()
    shape, measurement = name.split()
    sized = shape if gpu else "tiny"
    config = transformers.LlamaConfig(
        **SHAPES[sized], max_position_embeddings=8192, pad_token_id=0, architectures=["LlamaForCausalLM"]
    )
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    work, *variants = measurement.split("+")
    pairs, given, settings = given_pairs(work, STEPS, sized)
    prompt = round(sum(len(p) for p, *_ in given) / len(given))
    response = round(sum(len(c) + len(r) for _, c, r in given) / len(given) / 2)
    longest = max(len(p) + max(len(c), len(r)) for p, c, r in given)
    asked: dict[str, Any] = {"batch-size": pairs, "micro-batch-size": pairs, "max-length": 8192}
    asked |= {"precision": "bf16" if gpu else "fp32", **({"lora.r": RANK} if shape == "8b" else {}), **settings}
    flags = [word for flag, value in asked.items() if value is not None for word in (f"--{flag}", str(value))]
    flags += ["--activation-checkpointing"] if "checkpointing" in variants else []
    lengths = ["--prompt-tokens", str(prompt), "--response-tokens", str(response), "--longest", str(longest)]
    words = ["plan", "--json", "--model", str(folder / "config.json"), *gpu, *lengths, *flags]
    memory = json.loads(spoken([sys.executable, "-m", "alignzoo", *words]))["memory"]
    beside = memory["parts"].get("allocator and context", 0.0)
    return {"peak": memory["peak"], "tensors": memory["peak"] - beside, "at": memory["at"], "parts": memory["parts"]}


def generation(*, cpu: bool) -> Figures:
    """Greedy responses of a 1B shape with random weights in bf16, against its own ``generate`` on padded batches."""
    import torch
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoTokenizer

    from alignzoo.generate.batched import generate
    from alignzoo.generate.decoding import Decoding

    device = device_of(cpu)
    count, new, bounds, size = (8, 4, (4, 12), 4) if cpu else (256, 128, (32, 512), 64)
    model = random_model(SHAPES["tiny" if cpu else "1b"], device).to(torch.float32 if cpu else torch.bfloat16).eval()
    model.generation_config.pad_token_id = 0
    draw = random.Random(0)
    prompts = [[draw.randrange(3, 1000) for _ in range(draw.randint(*bounds))] for _ in range(count)]
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)

    def padded(rows: list[list[int]]) -> None:
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
        model.generate(input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=new, do_sample=False)

    began = time.perf_counter()
    tokens = sum(response.tokens for _, response in generate(model, tokenizer, prompts, Decoding(new)))
    ours = time.perf_counter() - began
    began = time.perf_counter()
    ordered = sorted(prompts, key=len)
    for start in range(0, count, size):
        padded(ordered[start : start + size])
    theirs = time.perf_counter() - began
    shown = f"{tokens / ours:.0f} tokens/s; generate on batches of {size}: {theirs / ours:.2f} times as long"
    return {"seconds": ours, "padded": theirs, "tokens": tokens, "shown": shown}


def memory(*, cpu: bool) -> Figures:
    """The measured peaks of whole runs, full and (on a GPU) LoRA, against what ``alignzoo plan`` predicts."""
    found = {which: _memory(which, cpu=cpu) for which in (("full",) if cpu else ("full", "lora"))}
    return {**found, "shown": "; ".join(f"{which}: {one['shown']}" for which, one in found.items())}


def _memory(which: str, *, cpu: bool) -> Figures:
    import plan_accuracy
    import torch

    device_of(cpu)
    shape = "30M, 32k" if cpu else "135M, 49k"
    settings = {"lora": {"r": 8}, "precision": "bf16"} if which == "lora" else {"precision": "bf16"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = plan_accuracy.write_data(folder / "pairs.jsonl")
        model = plan_accuracy.write_model(folder / "model", plan_accuracy.SHAPES[shape])
        recipe = plan_accuracy.recipe_of(model, data, settings, folder / "run")
        if cpu:
            predicted, measured = (
                plan_accuracy.predict(recipe, give_back=True),
                plan_accuracy.run_apart(recipe, give_back=True),
            )
        else:
            import alignzoo

            predicted = plan_accuracy.predict(recipe, gpu=float(torch.cuda.mem_get_info()[1]))
            release()
            torch.cuda.reset_peak_memory_stats()
            alignzoo.run(recipe)
            measured = float(torch.cuda.max_memory_allocated())
    error = (predicted - measured) / measured
    shown = f"{shape}: predicted {predicted / GIB:.3f} GiB, measured {measured / GIB:.3f} GiB, {100 * error:+.1f} %"
    return {"predicted": predicted, "measured": measured, "error": error, "shown": shown}
