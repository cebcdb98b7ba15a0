"""Whole steps of a shape by alignzoo and by TRL: the same pairs as the same token ids, reference log-probs computed
before the first step and not timed.

Measurements share a process, one after the other; one that fails does not take the others with it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shapes import (
    GIB,
    RANK,
    SHAPES,
    TINY_WORK,
    WORK,
    Figures,
    Pair,
    dense_peak,
    device_of,
    operations,
    random_model,
    random_pairs,
    unique_tokens,
)

STEPS, IGNORED = 8, 3
"""Timed steps, and how many of the first of them do not count: their lengths are new to compiled kernels."""
VARIANTS: dict[str, dict[str, Any]] = {
    "checkpointing": {},
    "padded": {"packing": False},
    "compile": {"compile": True},
    "offloading": {"activation-offloading": True},
    "fp32-weights": {"weights": "fp32"},
}
"""Settings of alignzoo by a word after a plus in a measurement's name; the first is the job's, on both sides."""
ON_CUDA = ("offloading",)
"""Those that a run on a CPU refuses."""


def steps(shape: str, side: str, *names: str, cpu: bool) -> Figures:
    """Measurements like ``dialogues`` or ``long+checkpointing``, by name.

    Raises:
        SystemExit: one of them failed; the others' figures are printed.
    """
    device = device_of(cpu)
    found: Figures = {}
    for name in names:
        try:
            found[name] = measure(shape, side, name, device)
        except Exception as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}"
            found[name] = {"error": said[:2000], "shown": f"failed: {said.splitlines()[0][:100]}"}
        release()
        shown = "; ".join(f"{known}: {found[known]['shown']}" for known in found)
        print(json.dumps({**found, "shown": shown}), flush=True)  # what is measured survives what comes
    failed = [name for name in names if "error" in found[name]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    return {**found, "shown": shown}


def release() -> None:
    """Give back what the last measurement held, so that the next one's peak is its own."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def given_pairs(work: str, steps_: int, shape: str) -> tuple[int, list[Pair], dict[str, Any]]:
    """Pairs of a step, the pairs of all steps and of the one that goes first, and the settings they come with."""
    taken = (TINY_WORK if shape == "tiny" else WORK)[work]
    vocabulary = min(SHAPES[shape]["vocab_size"], 1000)  # the tokenizer is the sandbox's
    return taken.pairs, random_pairs((steps_ + 1) * taken.pairs, vocabulary, taken.prompt, taken.response), {
        **taken.settings,
        **({"micro-batch-size": None} if "tokens-per-micro-batch" in taken.settings else {}),
    }  # fmt: skip


def job_of(shape: str, name: str, device: str, scratch: Path, count: int) -> tuple[Any, list[Pair]]:
    """The job of a measurement, and its pairs."""
    from alignzoo_sandbox import MODEL_PATH
    from measured import Job

    work, *variants = name.split("+")
    sized = "tiny" if device == "cpu" else shape
    pairs, given, settings = given_pairs(work, count, sized)
    columns = zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(list, zip(*given, strict=True)), strict=True)
    tokens = scratch / "tokens.json"
    tokens.write_text(json.dumps(dict(columns)))
    folder = scratch / "run"
    folder.mkdir()
    for variant in variants:
        settings |= {} if device == "cpu" and variant in ON_CUDA else VARIANTS[variant]
    job = Job(
        model=str(MODEL_PATH), tokens=str(tokens), pairs=pairs, steps=count, max_length=8192, cached=True,
        precision="fp32" if device == "cpu" else "bf16", lora=RANK if shape == "8b" else 0,
        threads=1 if device == "cpu" else 4,
        scratch=str(folder), checkpointing="checkpointing" in variants, settings=settings,
    )  # fmt: skip
    return job, given


def measure(shape: str, side: str, name: str, device: str) -> Figures:
    """One measurement: what ``measured.Clock`` shows, with rates."""
    import steps_alignzoo
    import steps_trl

    config = SHAPES["tiny" if device == "cpu" else shape]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ALIGNZOO_CACHE"] = f"{scratch}/cache"
        job, given = job_of(shape, name, device, Path(scratch), 2 if device == "cpu" else STEPS)
        take = steps_trl.take_steps if side == "trl" else steps_alignzoo.take_steps
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            take(job, time.time(), lambda: random_model(config, device))
    figures: Figures = json.loads(printed.getvalue().splitlines()[-1])
    ignored = 0 if device == "cpu" else IGNORED
    by_step = [given[at : at + job.pairs] for at in range(0, len(given), job.pairs)][1 + ignored :]
    return figures | rates(figures["seconds"][ignored:], figures["peak"], by_step, config, job.lora)


def rates(
    seconds: Sequence[float], peak: float, pairs: Sequence[Sequence[Pair]], config: dict[str, Any], rank: int
) -> Figures:
    """Unique tokens a second, and the share of the card's dense bf16 peak, of the steps that count (medians)."""
    timed = list(zip(seconds, pairs, strict=True))
    speed = statistics.median(unique_tokens(step) / took for took, step in timed)
    flops = statistics.median(operations(config, step, rank) / took for took, step in timed)
    best = dense_peak(card_name())
    shown = f"{statistics.median(seconds):.3f} s a step, {speed:.0f} tokens/s, peak {peak / GIB:.2f} GiB"
    if best:
        shown += f", {100 * flops / best:.0f} % of the dense bf16 peak"
    return {
        "timed": list(seconds),
        "tokens_per_second": speed,
        "flops": flops,
        "share": flops / best if best else None,
        "shown": shown,
    }


def card_name() -> str:
    """The GPU's name, or nothing."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
