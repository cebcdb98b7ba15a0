"""What geometry controllers cost beside the plain step: ``python benchmarks/geometry_cost.py --model MODEL``.

Time: whole steps (forward, backward, optimizer) of one process, the controllers taking turns, reference log-probs
computed beforehand as in a run with a cache; medians, and that of the ratios to the plain step of the same round.
Memory: the peak of a process of its own for each controller, over the same steps. MODEL is anything that
``alignzoo run`` takes; ``sandbox`` is quick and says little, for its layers are tiny.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A controller with its options, over so many steps in a row; budgets relative to ``plain``: of the time of a step,
    and of the peak memory (what one copy of the trained weights adds, where ``copies`` says so)."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 1
    time: float | None = None
    memory: float | None = None
    copies: int | None = None


CASES = {
    "plain": Case("plain"),
    "shapo-token": Case("shapo-token", {"interval": 1, "select": "random"}, time=1.75, memory=0.03),
    "shapo-token, every 5th": Case("shapo-token", {"interval": 5, "select": "random"}, 5, time=1.16, memory=0.03),
    "sam": Case("sam", {"interval": 1}, time=2.1, copies=1),
}


def prepare(model: str, pairs: int, length: int) -> tuple[Any, list[Any], list[Any]]:
    """The policy's engine, the batches of one step, and their reference log-probs."""
    from accelerate import Accelerator

    from alignzoo import load_method
    from alignzoo.data.collate import collate
    from alignzoo.logprobs.forward import choose_forward
    from alignzoo.model.load import load_policy, load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.objective.objective import Objective
    from alignzoo.plan.settings import Settings
    from alignzoo.step.engine import Engine

    settings = Settings(model=model)
    source = find_model(model)
    tokenizer = load_tokenizer(source, settings)
    policy = load_policy(source, settings).train()
    words = list(range(10, min(1000, len(tokenizer))))
    rows = [
        {
            "row_id": i,
            "prompt_ids": words[i : i + length // 2],
            "response_ids": [words[i + begin : i + begin + length // 2] for begin in (50, 90)],
        }
        for i in range(pairs)
    ]
    batch = collate(rows, tokenizer.pad_token_id, shape="pairs")
    import torch

    forward = choose_forward(policy, batch).forward
    with torch.no_grad():
        reference = forward(policy, batch)
    engine = Engine(policy, forward, Objective(load_method("loss", "dpo")), Accelerator(cpu=True), 0)
    return engine, [batch], [reference]


def controller_of(name: str, engine: Any) -> Any:
    """The controller, set up on the engine's model."""
    from alignzoo import load_method
    from alignzoo.report import Reporter
    from alignzoo.step.setup import SetupContext

    made = load_method("geometry", CASES[name].method, **CASES[name].options)
    made.setup(SetupContext(engine.model, 0, Reporter(), lambda given: None))
    return made


def take(
    controller: Any, engine: Any, optimizer: Any, batches: Sequence[Any], references: Sequence[Any], steps: int
) -> float:
    """Seconds of a whole step, over so many in a row."""
    from alignzoo.step.context import StepContext

    began = time.perf_counter()
    for step in range(steps):
        controller.step(StepContext(engine, batches, references, step))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) / steps


def measure_time(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of the controllers' steps, taken in turns."""
    import torch

    engine, batches, references = prepare(arguments.model, arguments.pairs, arguments.length)
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=1e-9)
    controllers = {name: controller_of(name, engine) for name in CASES}
    times: dict[str, list[float]] = {name: [] for name in controllers}
    for round_ in range(arguments.rounds + 1):
        for name, controller in controllers.items():
            seconds = take(controller, engine, optimizer, batches, references, CASES[name].steps)
            if round_:  # the first is for warming up
                times[name].append(seconds)
    return times


def measure_memory(arguments: argparse.Namespace, name: str) -> dict[str, float]:
    """Of a process that takes two steps: its peak resident memory and the size of the trained weights, in GiB."""
    words = [sys.executable, __file__, "--model", arguments.model, "--pairs", str(arguments.pairs)]
    words += ["--length", str(arguments.length), "--only", name]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def two_steps(arguments: argparse.Namespace) -> None:
    """What :func:`measure_memory` starts."""
    import torch

    engine, batches, references = prepare(arguments.model, arguments.pairs, arguments.length)
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=1e-9)
    controller = controller_of(arguments.only, engine)
    take(controller, engine, optimizer, batches, references, 2 * CASES[arguments.only].steps)
    weights = sum(weight.numel() * weight.element_size() for weight in engine.model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak": peak, "weights": weights / 2**30}))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sandbox")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="tokens of prompt and response together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        two_steps(arguments)
        return
    memory = {name: measure_memory(arguments, name) for name in CASES}  # first: a child inherits its parent's peak
    times = measure_time(arguments)
    least = memory["plain"]["peak"]
    heads = ("median s", "min", "max", "ratio", "budget", "peak GiB", "more", "budget")
    print(f"{'controller':24s}" + "".join(f"{head:>10s}" for head in heads))
    for name, case in CASES.items():
        values, peak = times[name], memory[name]["peak"]
        # Ratios of neighbours in time, so that a machine that slows down on the way does not count.
        ratio = statistics.median(value / plain for value, plain in zip(values, times["plain"], strict=True))
        allowed = case.memory * least if case.memory else (case.copies or 0) * memory[name]["weights"]
        cells = (f"{statistics.median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}", f"{ratio:.3f}")
        cells += (str(case.time or "-"), f"{peak:.2f}", f"{peak - least:+.2f}", f"{allowed:.2f}" if allowed else "-")
        print(f"{name:24s}" + "".join(f"{cell:>10s}" for cell in cells))


if __name__ == "__main__":
    main()
