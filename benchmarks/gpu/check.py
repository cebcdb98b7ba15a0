"""The parts of the GPU check, each in a process of its own that may fail or be stopped: a table, and a JSON file.

    benchmarks/gpu/check.sh [--cpu] [--only PART ...] [--rest FILE] [--json FILE] [--limit SECONDS]
    benchmarks/gpu/check.sh --show FILE [--write PAGE]

Parts that only check numbers run side by side; those that measure time run alone, after them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import goals

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("torch", "triton", "transformers", "accelerate", "peft", "datasets", "trl")
LIMIT = {"gpu": 530, "cpu": 590}
"""Seconds for everything."""
BESIDE = {"gpu": 10, "cpu": 2}
"""Parts at a time, where nothing is timed; with --cpu that is everywhere."""


@dataclass(frozen=True)
class Part:
    """``seconds``: it is stopped after so many on a GPU; ``alone``: nothing may run beside it."""

    name: str
    words: tuple[str, ...]
    about: str
    seconds: int
    alone: bool = False


CASES = ("dialogues", "long", "dialogues+checkpointing", "long+checkpointing")
"""Of the 1B shape, by both sides; TRL's default is with checkpointing, alignzoo's without."""
PARTS = (
    Part("tests", ("tests",), "the tests marked gpu", 150),
    Part("packing-fp32", ("packing", "fp32"), "packed = padded in fp32, six families", 150),
    Part("packing-bf16", ("packing", "bf16"), "packed = padded in bf16, six families", 150),
    Part("precision", ("precision",), "log-probs in bf16 against fp64 on a 1B shape", 100),
    Part("methods", ("methods",), "every geometry and wrapper, two steps each", 150),
    Part("sandbox", ("sandbox",), "a run on the sandbox", 150),
    Part("launch", ("launch",), "alignzoo run --devices: the losses of one process", 120),
    Part("rank", ("rank",), "one rank of a launch: process group, DDP, shards, resume", 150),
    Part("plan", ("plan",), "what alignzoo plan foretells of the steps below", 120),
    Part("memory", ("memory",), "memory of whole runs against alignzoo plan", 120),
    Part(
        "1b-alignzoo", ("steps", "1b", "alignzoo", *CASES, "rows"), "steps of a 1B shape, all weights", 110, alone=True
    ),
    Part("1b-trl", ("steps", "1b", "trl", *CASES), "the same pairs by TRL", 100, alone=True),
    Part("profile", ("profile",), "operations of a packed step, and host syncs", 60, alone=True),
    Part("geometry", ("geometry",), "ShaPO and sam beside plain steps, 1B shape", 60, alone=True),
    Part("8b-alignzoo", ("steps", "8b", "alignzoo", *CASES[2:]), "steps of an 8B shape, LoRA", 100, alone=True),
    Part("8b-trl", ("steps", "8b", "trl", *CASES[2:]), "the same pairs by TRL", 100, alone=True),
    Part("head", ("script", "head"), "the LM head and its alternatives", 60, alone=True),
    Part("attention", ("script", "attention"), "ways of attention by length", 70, alone=True),
    Part(
        "1b-settings",
        ("steps", "1b", "alignzoo", "rows+compile", "long+offloading", "dialogues+padded"),
        "compile, activation-offloading, no packing",
        110,
        alone=True,
    ),
    Part(
        "8b-weights",
        ("steps", "8b", "alignzoo", "dialogues+checkpointing+fp32-weights"),
        "frozen weights of the 8B shape in fp32",
        80,
        alone=True,
    ),
    Part("generation", ("generation",), "responses of a 1B shape, against its own generate", 70, alone=True),
)
"""In the order of their worth: the limit may come before the last ones."""


@dataclass
class Outcome:
    """``status``: ok, failed, timed out, or not reached (the limit came first)."""

    part: str
    about: str
    status: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    output: str = ""


def run_part(part: Part, *, cpu: bool, deadline: float, folder: Path) -> Outcome:
    """The part's outcome; whatever it does, this process survives it.

    Args:
        folder: where it may leave files.
    """
    left = deadline - time.monotonic()
    if left < 5:
        return Outcome(part.name, part.about, "not reached")
    words = [sys.executable, "-W", "ignore", str(HERE / "parts.py"), *part.words, *(["--cpu"] if cpu else [])]
    began = time.monotonic()
    environment = {**os.environ, "OUT": str(folder), "OMP_NUM_THREADS": "1" if cpu else "4"}
    if not part.alone:  # or each part beside others would start a compiler process for every core
        environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=left if cpu else min(left, part.seconds))
        status = "ok" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        end_all(process.pid)
        try:
            output, errors = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # something that left the family holds the pipes
            output, errors = "", "its output was lost\n"
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


def end_all(pid: int) -> None:
    """Kill a process and all that it has started, the workers of a launch too, which are in sessions of their own: they
    would hold the pipes that are read to their end, and the GPU."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # those whose parent has died, too
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


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


@dataclass
class Check:
    """Outcomes so far, in a file after each: what is done survives whatever ends this process."""

    file: Path
    facts: dict[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def keep(self, outcome: Outcome) -> None:
        """Add an outcome, and say so."""
        self.outcomes[outcome.part] = outcome
        self.file.write_text(json.dumps(self.content, indent=1))
        print(f"[{outcome.seconds:6.1f} s] {outcome.part}: {outcome.status}", flush=True)
        if outcome.output:
            print("    " + outcome.output.strip()[-1500:].replace("\n", "\n    "), flush=True)

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds."""
        ordered = [self.outcomes[part.name] for part in (*PARTS, SAME_WORK) if part.name in self.outcomes]
        return {**self.facts, "parts": [asdict(outcome) for outcome in ordered]}

    def compare(self) -> None:
        """Whether both sides did the same work, as an outcome of its own, if both were measured."""
        found = {name: outcome.figures for name, outcome in self.outcomes.items()}
        if any(f"{shape}-trl" in found and f"{shape}-alignzoo" in found for shape in ("1b", "8b")):
            problems = goals.different_work(found, cpu=self.facts["cpu"])
            status = "failed" if problems else "ok"
            self.keep(Outcome(SAME_WORK.name, SAME_WORK.about, status, output="\n".join(problems)))


SAME_WORK = Part("same-work", (), "first log-probs and losses of both sides", 0)


def run(parts: Sequence[Part], check: Check, deadline: float) -> None:
    """Run the parts: side by side first, then those that want to be alone."""
    cpu = check.facts["cpu"]

    def outcome(part: Part) -> Outcome:
        return run_part(part, cpu=cpu, deadline=deadline, folder=check.file.parent)

    with ThreadPoolExecutor(BESIDE["cpu" if cpu else "gpu"]) as beside:
        running = [beside.submit(outcome, part) for part in parts if cpu or not part.alone]
        for one in as_completed(running):
            check.keep(one.result())
    for part in parts:
        if part.name not in check.outcomes:
            check.keep(outcome(part))
    check.compare()


def main() -> None:
    """Run the parts; exit 1 if one of them failed. A goal that is missed is no failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU, to try the check itself")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--rest", type=Path, metavar="FILE", help="keep the parts that were ok in an earlier check")
    parser.add_argument("--json", type=Path, help="where results go [default: $OUT or build/gpu, check.json]")
    parser.add_argument("--limit", type=float, help="seconds for everything [default: 530, with --cpu 590]")
    parser.add_argument("--show", type=Path, metavar="FILE", help="show the results of an earlier check, run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the results into a page, too")
    arguments = parser.parse_args()
    content = json.loads(arguments.show.read_text()) if arguments.show else checked(arguments)
    print(f"\n{goals.summary(content)}", flush=True)
    if arguments.write:
        goals.write(content, arguments.write)
    raise SystemExit(any(part["status"] != "ok" for part in content["parts"]))


def checked(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is asked for; the content of the file that is written."""
    file = arguments.json or Path(os.environ.get("OUT") or ROOT / "build" / "gpu") / "check.json"
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (arguments.limit or LIMIT["cpu" if arguments.cpu else "gpu"])
    check = Check(file, {**describe(), "cpu": arguments.cpu})
    if arguments.rest:
        earlier = [Outcome(**part) for part in json.loads(arguments.rest.read_text())["parts"]]
        check.outcomes = {one.part: one for one in earlier if one.status == "ok" and one.part != SAME_WORK.name}
    facts = check.facts
    print(f"{facts['card']}; commit {facts['commit']}; {facts['versions']}", flush=True)
    asked = [part for part in PARTS if arguments.only is None or part.name in arguments.only]
    run([part for part in asked if part.name not in check.outcomes], check, deadline)
    print(f"\nwritten: {file}", flush=True)
    cut = [name for name, outcome in check.outcomes.items() if outcome.status in ("not reached", "timed out")]
    if cut:
        print(f"cut: {', '.join(cut)}; resume with: benchmarks/gpu/check.sh --rest {file}", flush=True)
    return check.content


if __name__ == "__main__":
    main()
