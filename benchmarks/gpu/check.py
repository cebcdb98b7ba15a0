"""The parts of the GPU check, each in a process of its own that may fail or be stopped: a table, and a JSON file.

    benchmarks/gpu/check.sh [--cpu] [--only PART ...] [--json FILE] [--limit SECONDS]

Parts that only check numbers run side by side on a GPU; those that measure time or memory run alone, after them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("torch", "triton", "transformers", "accelerate", "peft", "datasets", "trl")
LIMIT = {"gpu": 460, "cpu": 290}
"""Seconds for everything."""


@dataclass(frozen=True)
class Part:
    """``seconds``: it is stopped after so many on a GPU; ``alone``: nothing may run beside it."""

    name: str
    words: tuple[str, ...]
    about: str
    seconds: int
    alone: bool = False


PARTS = (
    Part("tests", ("tests",), "the tests marked gpu", 120),
    Part("packing", ("packing",), "packed = padded, FlexAttention compiled", 200),
    Part("methods", ("methods",), "every geometry and wrapper, two steps each", 200),
    Part("sandbox", ("sandbox",), "a run on the sandbox", 150),
    Part("generation", ("generation",), "responses of a 1B shape, against its own generate", 90, alone=True),
    Part("memory-full", ("memory", "full"), "measured memory against alignzoo plan, all weights", 60, alone=True),
    Part("memory-lora", ("memory", "lora"), "measured memory against alignzoo plan, LoRA", 60, alone=True),
    Part("1b-packed", ("steps", "1b", "packed"), "steps of a 1B shape, all weights, packed", 80, alone=True),
    Part("1b-padded", ("steps", "1b", "padded"), "the same padded", 80, alone=True),
    Part("1b-trl", ("steps", "1b", "trl"), "the same pairs by TRL", 80, alone=True),
    Part("8b-packed", ("steps", "8b", "packed"), "steps of an 8B shape, LoRA, packed", 90, alone=True),
    Part("8b-padded", ("steps", "8b", "padded"), "the same padded", 90, alone=True),
    Part("8b-trl", ("steps", "8b", "trl"), "the same pairs by TRL", 90, alone=True),
)


@dataclass
class Outcome:
    """``status``: ok, failed, timed out, or not reached (the limit came first)."""

    part: str
    about: str
    status: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    output: str = ""


def run_part(part: Part, *, cpu: bool, deadline: float) -> Outcome:
    """The part's outcome; whatever it does, this process survives it."""
    left = deadline - time.monotonic()
    if left < 5:
        return Outcome(part.name, part.about, "not reached")
    words = [sys.executable, "-W", "ignore", str(HERE / "parts.py"), *part.words, *(["--cpu"] if cpu else [])]
    began = time.monotonic()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=left if cpu else min(left, part.seconds))
        status = "ok" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        status = "timed out"
    figures: dict[str, Any] = {}
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                figures = json.loads(line)
            except ValueError:
                continue
            break
    tail = "" if status == "ok" else (output[-3000:] + errors[-5000:])
    return Outcome(part.name, part.about, status, round(time.monotonic() - began, 1), figures, tail)


def describe() -> dict[str, Any]:
    """Card, versions and commit."""
    card = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    changed = " and changes" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "card": card or "none",
        "python": platform.python_version(),
        "versions": versions,
        "commit": (_output("git", "rev-parse", "--short", "HEAD") or "unknown") + changed,
        "date": time.strftime("%Y-%m-%d"),
    }


def _output(*words: str) -> str:
    try:
        ended = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as Markdown."""
    lines = ["| part | outcome | s | figures |", "| --- | --- | ---: | --- |"]
    for outcome in outcomes:
        shown = outcome.figures.get("shown", "")
        lines.append(f"| {outcome.part} | {outcome.status} | {outcome.seconds:.0f} | {shown or outcome.about} |")
    return "\n".join(lines)


def main() -> None:
    """Run the parts; exit 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU, to try the check itself")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--json", type=Path, help="where results go [default: $OUT or build/gpu, check.json]")
    parser.add_argument("--limit", type=float, help="seconds for everything [default: 460, with --cpu 290]")
    arguments = parser.parse_args()
    where = arguments.json or Path(os.environ.get("OUT") or ROOT / "build" / "gpu") / "check.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (arguments.limit or LIMIT["cpu" if arguments.cpu else "gpu"])
    parts = [part for part in PARTS if arguments.only is None or part.name in arguments.only]
    facts = describe()
    print(f"{facts['card']}; commit {facts['commit']}; {facts['versions']}", flush=True)
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        """After each part: what is done survives whatever ends this process."""
        outcomes.append(outcome)
        outcomes.sort(key=lambda known: [part.name for part in PARTS].index(known.part))
        where.write_text(json.dumps({**facts, "parts": [asdict(known) for known in outcomes]}, indent=1))
        print(f"[{outcome.seconds:6.1f} s] {outcome.part}: {outcome.status}", flush=True)
        if outcome.output:
            print("    " + outcome.output.strip()[-1500:].replace("\n", "\n    "), flush=True)

    with ThreadPoolExecutor(1 if arguments.cpu else 4) as beside:
        running = [beside.submit(run_part, p, cpu=arguments.cpu, deadline=deadline) for p in parts if not p.alone]
        for one in running:
            keep(one.result())
    for part in parts:
        if part.alone:
            keep(run_part(part, cpu=arguments.cpu, deadline=deadline))
    print(f"\n{table(outcomes)}\n\nwritten: {where}", flush=True)
    raise SystemExit(any(outcome.status != "ok" for outcome in outcomes))


if __name__ == "__main__":
    main()
