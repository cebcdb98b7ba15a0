"""What geometry controllers cost beside the plain step: ``python benchmarks/geometry_cost.py --model MODEL``.

Time: whole steps (forward, backward, optimizer) of one process, the controllers taking turns, reference log-probs
computed beforehand as in a run with a cache; medians, and their ratio to ``plain``. Memory: the peak of a process of
its own for each controller, over the same steps. MODEL is anything that ``alignzoo run`` takes; ``sandbox`` is quick
and says little, for its layers are tiny.
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
from typing import Any

CONTROLLERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shapo-token": {"interval": 1, "select": "random"},
    "sam": {"interval": 1},
}
BUDGET = {"shapo-token": 1.75, "sam": 2.1}


def prepare(model: str, pairs: int, length: int) -> tuple[Any, list[Any], list[Any]]:
    """The policy's engine, the batches of one step, and their reference log-probs."""
    from accelerate import Accelerator

    from alignzoo import load_method
    from alignzoo.data.collate import collate
    from alignzoo.model.load import find_model, load_policy, load_tokenizer
    from alignzoo.plugin.settings import Settings
    from alignzoo.train.context import Engine
    from alignzoo.train.logps import padded_pair_logps
    from alignzoo.train.objective import Objective

    settings = Settings(model=model)
    source = find_model(model)
    tokenizer = load_tokenizer(source, settings)
    policy = load_policy(source, settings).train()
    words = list(range(10, min(1000, len(tokenizer))))
    rows = [
        {
            "pair_id": i,
            "prompt_ids": words[i : i + length // 2],
            "chosen_ids": words[i + 50 : i + 50 + length // 2],
            "rejected_ids": words[i + 90 : i + 90 + length // 2],
        }
        for i in range(pairs)
    ]
    batch = collate(rows, tokenizer.pad_token_id)
    import torch

    with torch.no_grad():
        reference = padded_pair_logps(policy, batch)
    engine = Engine(policy, padded_pair_logps, Objective(load_method("loss", "dpo")), Accelerator(cpu=True), 0)
    return engine, [batch], [reference]


def controller_of(name: str, engine: Any) -> Any:
    """The controller, set up on the engine's model."""
    from alignzoo import load_method
    from alignzoo.report import Reporter
    from alignzoo.train.context import SetupContext

    made = load_method("geometry", name, **CONTROLLERS[name])
    made.setup(SetupContext(engine.model, 0, Reporter(), lambda given: None))
    return made


def one_step(controller: Any, engine: Any, optimizer: Any, batches: Sequence[Any], references: Sequence[Any]) -> float:
    """Seconds of a whole step."""
    from alignzoo.train.context import StepContext

    began = time.perf_counter()
    controller.step(StepContext(engine, batches, references, 0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def measure_time(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of the controllers' steps, taken in turns."""
    import torch

    engine, batches, references = prepare(arguments.model, arguments.pairs, arguments.length)
    optimizer = torch.optim.SGD(engine.model.parameters(), lr=1e-9)
    controllers = {name: controller_of(name, engine) for name in CONTROLLERS}
    times: dict[str, list[float]] = {name: [] for name in controllers}
    for round_ in range(arguments.rounds + 1):
        for name, controller in controllers.items():
            seconds = one_step(controller, engine, optimizer, batches, references)
            if round_:  # the first is for warming up
                times[name].append(seconds)
    return times


def measure_memory(arguments: argparse.Namespace, name: str) -> float:
    """Peak resident memory in GiB of a process that takes two steps."""
    words = [sys.executable, __file__, "--model", arguments.model, "--pairs", str(arguments.pairs)]
    words += ["--length", str(arguments.length), "--only", name]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(ended.stdout)["peak_gib"])


def two_steps(arguments: argparse.Namespace) -> None:
    """What :func:`measure_memory` starts."""
    import torch

    engine, batches, references = prepare(arguments.model, arguments.pairs, arguments.length)
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=1e-9)
    controller = controller_of(arguments.only, engine)
    for _ in range(2):
        one_step(controller, engine, optimizer, batches, references)
    print(json.dumps({"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sandbox")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="tokens of prompt and response together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CONTROLLERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        two_steps(arguments)
        return
    times = measure_time(arguments)
    memory = {name: measure_memory(arguments, name) for name in CONTROLLERS}
    plain, least = statistics.median(times["plain"]), memory["plain"]
    heads = ("median s", "min", "max", "ratio", "budget", "peak GiB", "more")
    print(f"{'controller':14s}" + "".join(f"{head:>10s}" for head in heads))
    for name, values in times.items():
        median, budget = statistics.median(values), BUDGET.get(name)
        cells = (f"{median:.3f}", f"{min(values):.3f}", f"{max(values):.3f}", f"{median / plain:.2f}")
        cells += (str(budget or "-"), f"{memory[name]:.2f}", f"{memory[name] / least - 1:.1%}")
        print(f"{name:14s}" + "".join(f"{cell:>10s}" for cell in cells))


if __name__ == "__main__":
    main()
