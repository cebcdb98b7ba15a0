"""How well `alignzoo plan` foretells the memory of a rank under FSDP2: two ranks on this machine (gloo).

    python benchmarks/plan_sharded.py [--only WORD]

As `plan_accuracy.py --give-back`: models with random weights, planned from their configs, then trained for a few steps.
What is measured is the anonymous memory of each rank (files that are mapped left out), read from outside every few
milliseconds, less what it held after its imports; the larger of the two ranks counts. It is held against the estimate's
tensors, for a CPU of each rank's own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import plan_accuracy

GIB = plan_accuracy.GIB
RANKS = 2
CASES: list[tuple[str, dict[str, Any]]] = [
    ("30M, 32k", {}),
    ("30M, 32k", {"activation-checkpointing": True}),
    ("30M, 32k", {"lora": {"r": 8}}),
    ("30M, 32k", {"precision": "bf16"}),
    ("60M, 100k", {}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases with this word in them")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        train(json.loads(arguments.rank))
        return
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
    with tempfile.TemporaryDirectory() as folder:
        data = plan_accuracy.write_data(Path(folder) / "pairs.jsonl")
        print(f"{'model':10} {'settings':32} {'predicted':>9} {'measured':>9} {'error':>7}  GiB of each rank; at")
        for number, (name, settings) in enumerate(CASES):
            words = " ".join(f"{key}={value}" for key, value in settings.items()) or "defaults"
            if arguments.only not in f"{name} {words}":
                continue
            model = plan_accuracy.write_model(Path(folder) / f"model{number}", plan_accuracy.SHAPES[name])
            recipe = plan_accuracy.recipe_of(model, data, settings, Path(folder) / f"run{number}")
            (predicted, at), measured = predict(recipe), run_ranks(recipe, Path(folder))
            print(
                f"{name:10} {words:32} {predicted / GIB:9.3f} {measured / GIB:9.3f} "
                f"{100 * (predicted / measured - 1):+6.1f}%  {at}",
                flush=True,
            )


def predict(recipe: dict[str, Any]) -> tuple[float, str]:
    """Bytes of a rank's tensors at their peak, and when that is."""
    from alignzoo_estimate.estimate import Hardware, Model, Situation, estimate
    from alignzoo_estimate.lengths import of_data
    from alignzoo_estimate.shapes import read_config

    from alignzoo.plan.recipe import Layer, flatten
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.report import Reporter

    plan = require(resolve([Layer("python", flatten(recipe, "the case"))], distributed="fsdp"))
    hardware = Hardware(RANKS, False, None, None, "fsdp")
    model = Model(read_config(plan.settings.model))
    found = estimate(Situation(plan, model, hardware, of_data(plan, Reporter())))
    return found.peak.total, found.peak.name


def run_ranks(recipe: dict[str, Any], folder: Path) -> float:
    """The measured bytes of the rank that has more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ALIGNZOO_CACHE": recipe["out"] + "-cache",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
    }
    command = [sys.executable, __file__, "--rank", json.dumps(recipe)]
    logs = [folder / f"rank{rank}.log" for rank in range(RANKS)]
    ranks = []
    for rank, log in enumerate(logs):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with log.open("w") as to:
            ranks.append(subprocess.Popen(command, env=environment, stdout=to, stderr=subprocess.STDOUT))
    peaks = [0.0] * RANKS
    while any(rank.poll() is None for rank in ranks):
        if any(rank.returncode for rank in ranks):
            break
        peaks = [max(peak, anonymous(rank.pid)) for peak, rank in zip(peaks, ranks, strict=True)]
        time.sleep(0.002)
    for rank in ranks:
        rank.terminate()
    if any(rank.wait() for rank in ranks):
        raise SystemExit("\n".join(log.read_text() for log in logs))
    began = [float(log.read_text().split("began with ")[1].split()[0]) for log in logs]
    return max(peak - before for peak, before in zip(peaks, began, strict=True))


def anonymous(process: int) -> float:
    """Resident bytes of a process without those of files; 0 if it has ended."""
    try:
        _, resident, of_files, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0.0
    return float(int(resident) - int(of_files)) * os.sysconf("SC_PAGE_SIZE")


def train(recipe: dict[str, Any]) -> None:
    """Train in this process, one of the ranks."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import alignzoo
    import alignzoo.train.begin

    torch.set_num_threads(1)
    print("began with", anonymous(os.getpid()), flush=True)
    alignzoo.run(recipe)


if __name__ == "__main__":
    main()
