"""How long listings and help take to start, beside the bare interpreter: ``python benchmarks/startup.py``.

Budgets on an otherwise idle machine: 0.6 s for ``ls`` and ``run --help``, 1.0 s for ``ls`` with 50 third-party plugins
of one method each (real distributions in a temporary folder, each with a card and options of its own). The ratio to the
interpreter's own start is what can be compared between machines.

``python benchmarks/startup.py --model FOLDER --data FILE`` measures from the start of a process to the first step of a
DPO run of one step: four pairs, four held-out pairs, the reference cached. *Cold* is without any cache of alignzoo or
datasets, *warm* is the same command again: tokens, reference log-probs and packing's trial are there. Compiled Python
files (written even where ``PYTHONDONTWRITEBYTECODE`` is set) and the system's file cache are warm in both. Budgets, on
two idle cores and SmolLM2-135M: 10 s cold, 5 s warm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from first_step import STAGES

LS, CROWDED = "alignzoo ls", "alignzoo ls, 50 plugins"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    LS: ["-m", "alignzoo", "ls"],
    CROWDED: ["-m", "alignzoo", "ls"],
    "alignzoo run --help": ["-m", "alignzoo", "run", "--help"],
    "alignzoo run --loss drdpo --dry-run": ["-m", "alignzoo", "run", "--loss", "drdpo", "--dry-run"],
}
ROUNDS = 7
PLUGINS = 50
PLUGIN = '''"""A plugin with one loss."""

from pydantic import Field

from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import F, torch
from alignzoo.plugin import Card, Options, hookimpl


class LossOptions(Options):
    beta: float = Field(0.1, gt=0, description="strength of the KL constraint to the reference")


class Loss(PreferenceLoss):
    options: LossOptions

    def __call__(self, pairs):
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected)

    def rewards(self, pairs):
        chosen, rejected = pairs.log_ratios()
        return self.options.beta * chosen, self.options.beta * rejected


@hookimpl
def alignzoo_methods():
    return [
        Card(
            kind="loss", name="crowd-{index}", target=f"{{__name__}}:Loss", options=LossOptions,
            summary="one of many", formula="-log sigma(beta h)", needs=frozenset({{"reference"}}), api=1,
        )
    ]
'''


def install_plugins(folder: Path) -> None:
    """Put the plugins into a folder for PYTHONPATH, as pip would."""
    for index in range(PLUGINS):
        name = f"crowd_{index}"
        (folder / f"{name}.py").write_text(PLUGIN.format(index=index))
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[alignzoo]\n{name} = {name}\n")


def seconds(words: list[str], path: str) -> float:
    """Wall-clock time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path})
    return time.perf_counter() - began


def listings() -> None:
    """Alternating runs, the medians and their ratio to the bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        for name, words in COMMANDS.items():  # once for the compiled files
            seconds(words, folder if name == CROWDED else "")
        for _ in range(ROUNDS):
            for name, words in COMMANDS.items():
                times[name].append(seconds(words, folder if name == CROWDED else ""))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':38s} {'median s':>9s} {'min':>6s} {'max':>6s} {'ratio':>6s}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:38s} {median:9.3f} {min(values):6.3f} {max(values):6.3f} {median / bare:6.1f}")


def compiling() -> dict[str, str]:
    """The environment, with compiled Python files written and read as an installed package's are."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def first_step(model: str, data: str, caches: Path) -> dict[str, Any]:
    """Seconds of each stage of one run (wall-clock, ``total`` too) and its ``cpu`` seconds."""
    recipe = {
        "model": model, "data": data, "max-steps": 1, "batch-size": 4, "eval-pairs": 4, "save-model": False,
        "out": str(caches / "run"),
    }  # fmt: skip
    shutil.rmtree(caches / "run", ignore_errors=True)
    own = {"ALIGNZOO_CACHE": str(caches / "alignzoo"), "HF_DATASETS_CACHE": str(caches / "datasets")}
    words = [sys.executable, str(Path(__file__).with_name("first_step.py")), json.dumps(recipe)]
    ran = subprocess.run(
        [*words, "--began", repr(time.time())], capture_output=True, text=True, env={**compiling(), **own}
    )
    if ran.returncode:
        raise SystemExit(f"the run failed:\n{ran.stderr}")
    found = json.loads(ran.stdout.splitlines()[-1])
    before, seconds = 0.0, {}
    for stage in STAGES:
        end = found["ends"].get(stage, before)
        seconds[stage], before = end - before, end
    return {**seconds, "total": before, "cpu": found["cpu"]}


def first_steps(model: str, data: str, rounds: int) -> None:
    """Cold and warm in turns; the medians of each stage, and the fastest and slowest total."""
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    loads = "import alignzoo.train.begin, alignzoo.runs.generated; from alignzoo.plugin import registry; registry()"
    subprocess.run([sys.executable, "-c", loads], check=True, env=compiling())  # once for the compiled files
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for case in found.values():
                case.append(first_step(model, data, Path(folder)))
    names = [*STAGES, "total", "cpu"]
    print("| to the first step, s |" + "".join(f" {name} |" for name in names) + " total, least and most |")
    print("| --- |" + " ---: |" * (len(names) + 1))
    for case, times in found.items():
        medians = "".join(f" {statistics.median(one[name] for one in times):.1f} |" for name in names)
        totals = [one["total"] for one in times]
        print(f"| {case} |{medians} {min(totals):.1f}–{max(totals):.1f} |")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a folder with weights; without it, listings and help are measured")
    parser.add_argument("--data", default="sandbox")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(words)
    if arguments.model:
        first_steps(arguments.model, arguments.data, arguments.rounds)
    else:
        listings()


if __name__ == "__main__":
    main()
