"""Ten methods with and without label noise on the sandbox, over seeds: runs, then the table of a page.

    python benchmarks/label_noise.py --out build/label-noise --write docs/label-noise.md

Every run is one of ``alignzoo run`` in its own process on one thread; finished runs are kept, so it can be stopped and
started again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RECIPE = Path(__file__).with_suffix(".yaml")
START, END = "<!-- measured: label noise -->", "<!-- end: label noise -->"
FIGURES = {
    "preference accuracy": "eval/rewards/accuracies",
    "attack success, test": "sandbox/asr/test",
    "attack success, unseen intents": "sandbox/asr/ood-intents",
    "attack success, wrapped": "sandbox/asr/ood-wrappers",
    "refusal, benign": "sandbox/refusal/benign",
    "refusal, borderline": "sandbox/refusal/borderline",
    "broken answers, test": "sandbox/broken/test",
}


@dataclass(frozen=True)
class Run:
    """One cell with one seed."""

    method: str
    words: Mapping[str, Any]
    rate: float
    seed: int

    def folder(self, out: Path) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", self.method)
        return out / f"{name}-{self.rate:g}-{self.seed}"


def runs(recipe: Mapping[str, Any]) -> list[Run]:
    """All runs, seeds outermost, so that an early stop leaves whole seeds."""
    return [
        Run(method, {**recipe["shared"], **words}, rate, seed)
        for seed in recipe["seeds"]
        for rate in recipe["rates"]
        for method, words in recipe["methods"].items()
    ]


def train(run: Run, out: Path) -> None:
    """Run it, unless it has finished; its output is in ``log``."""
    folder = run.folder(out)
    if (folder / "result.json").is_file():
        return
    recipe = out / "recipes" / f"{folder.name}.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump({**run.words, "label-noise": run.rate, "seed": run.seed}, allow_unicode=True))
    words = [sys.executable, "-m", "alignzoo", "run"]
    words += (
        ["--resume", str(folder)]
        if (folder / "plan.yaml").is_file()
        else ["--recipe", str(recipe), "--out", str(folder)]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    print(f"{folder.name}: {'done' if done.returncode == 0 else done.stderr.strip().splitlines()[-3:]}", flush=True)


def cells(every: list[Run], out: Path) -> dict[tuple[str, float], list[dict[str, float]]]:
    """The figures after training of the finished runs, by method and rate."""
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for run in every:
        path = run.folder(out) / "result.json"
        if path.is_file():
            found.setdefault((run.method, run.rate), []).append(json.loads(path.read_text())["after"])
    return found


def table(found: Mapping[tuple[str, float], list[dict[str, float]]]) -> list[str]:
    """A Markdown table: mean ± standard deviation over seeds."""
    seeds = sorted({len(figures) for figures in found.values()})
    lines = [f"Mean ± standard deviation over {' or '.join(map(str, seeds))} seeds.", ""]
    lines += [f"| noise | method | {' | '.join(FIGURES)} |", f"| --- | --- |{' --- |' * len(FIGURES)}"]
    for (method, rate), figures in sorted(found.items(), key=lambda item: item[0][1]):
        cells = [_spread([one[name] for one in figures]) for name in FIGURES.values()]
        lines.append(f"| {rate:.0%} | {method} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def write(page: Path, lines: list[str]) -> None:
    """Replace what stands between the page's markers."""
    before, rest = page.read_text().split(START)
    after = rest.split(END)[1]
    page.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def main() -> None:
    """Parse the command line, run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/label-noise"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, help="a page with the markers")
    arguments = parser.parse_args()
    every = runs(yaml.safe_load(RECIPE.read_text()))
    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda run: train(run, arguments.out), every))
    lines = table(cells(every, arguments.out))
    print("\n".join(lines))
    if arguments.write is not None:
        write(arguments.write, lines)


if __name__ == "__main__":
    main()
