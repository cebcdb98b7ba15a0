"""Whole steps in bf16 beside fp32 on a CPU: ``python benchmarks/precision_steps.py --model NAME --data FILE``.

Plain DPO with a cached reference, full fine-tuning. Both precisions take steps over the same pairs in turns, in one
process, so that whatever slows the machine down hits both; a round is one step each. Printed are the medians of wall
and CPU seconds of a step and of their ratios by round; then the share of a step's time in matrix products, the part
that bf16 makes faster, from one more step under the profiler. Budget: bf16 is 1.6 times as fast on a CPU with native
bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import Job

PRECISIONS = ("fp32", "bf16")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def loops(model: str, tokens: Path, pairs: int, rounds: int, threads: int, scratch: Path) -> dict[str, Any]:
    """A loop of each precision, ready for its first step."""
    from accelerate.state import AcceleratorState
    from steps_alignzoo import loop_of

    found = {}
    for precision in PRECISIONS:
        AcceleratorState._reset_state()  # it keeps one precision per process
        folder = scratch / f"{precision}-{pairs}"
        folder.mkdir()
        found[precision] = loop_of(
            Job(model, str(tokens), pairs, rounds + 1, 1024, True, precision, 0, threads, str(folder))
        )
    return found


def timed(loop: Any, step: int) -> tuple[float, float, int]:
    """Wall and CPU seconds of a step, and its tokens."""
    wall, cpu = time.perf_counter(), time.process_time()
    line = loop._step(step)
    return time.perf_counter() - wall, time.process_time() - cpu, line["tokens"]


def share_of_products(loop: Any, step: int) -> float:
    """The share of a step's wall time that is in matrix products outside attention."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loop._step(step)
    taken = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(taken.get(name, 0.0) for name in PRODUCTS) / sum(taken.values())


def compare(model: str, tokens: Path, pairs: int, rounds: int, threads: int, scratch: Path) -> str:
    """One row of the table; a first round of each is for warming up."""
    ready = loops(model, tokens, pairs, rounds, threads, scratch)
    for loop in ready.values():
        loop._step(0)
    taken = [{name: timed(loop, 1 + step) for name, loop in ready.items()} for step in range(rounds)]
    cells = [f"{pairs}", f"{statistics.mean(one['fp32'][2] for one in taken):.0f}"]
    for at in (0, 1):
        cells += [f"{statistics.median(one[name][at] for one in taken):.2f}" for name in PRECISIONS]
        cells.append(f"{statistics.median(one['fp32'][at] / one['bf16'][at] for one in taken):.2f}")
    cells += [f"{share_of_products(loop, 1 + rounds):.0%}" for loop in ready.values()]
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(words)
    from inputs import tokens_of

    names = "pairs | tokens | fp32, s | bf16, s | ratio | fp32, CPU s | bf16, CPU s | ratio"
    print(f"| {names} | products, fp32 | products, bf16 |")
    print("| ---: " * 10 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        count = max(arguments.pairs) * (arguments.rounds + 2)
        tokens.write_text(json.dumps(tokens_of(arguments.data, arguments.model, "hh-cached", count)))
        for pairs in arguments.pairs:
            size = (arguments.rounds, arguments.threads, Path(folder))
            print(compare(arguments.model, tokens, pairs, *size), flush=True)


if __name__ == "__main__":
    main()
