"""What geometry controllers cost beside the plain step, and what `alignzoo plan` says they do:

    python benchmarks/geometry_cost.py [CONTROLLER ...] [--rounds N]

The model is the smallest of ``plan_accuracy.py``, with random weights; controllers have their default options. Time:
CPU seconds of whole steps (forward, backward, optimizer) of one process with one thread, the controllers taking turns,
each over as many steps as its interval; reference log-probs are computed beforehand, as in a run with a cache. The
ratio is the median of those to the plain step of the same round. Memory: the peak of a run of its own for each
controller, less what its process held after the imports. The plan is made from config and data alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan_accuracy import GIB, SHAPES, recipe_of, run_apart, write_data, write_model

CONTROLLERS = ("sam", "shapo-token", "looksam", "rwp", "ema", "msam", "esam", "gsam")
SHAPE = "30M, 32k"
PLAIN = "plain"


@dataclass(frozen=True)
class Figures:
    """Of a controller, foretold or measured.

    Attributes:
        ratio: of a mean step's work or time to the plain one's.
        peak: bytes.
    """

    ratio: float
    peak: float


def foretold(recipe: dict[str, Any], names: Sequence[str]) -> dict[str, Figures]:
    """What `alignzoo plan` says of a run of the recipe with each controller."""
    from alignzoo_estimate.controllers import by_controller
    from alignzoo_estimate.estimate import Hardware, Model, Situation
    from alignzoo_estimate.lengths import of_data
    from alignzoo_estimate.shapes import read_config

    from alignzoo.plan.recipe import Layer, flatten
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.report import Reporter

    layers = [Layer("python", flatten(recipe, "the benchmark"))]
    plan = require(resolve(layers))
    hardware = Hardware(1, False, None, None, "none")
    situation = Situation(plan, Model(read_config(plan.settings.model)), hardware, of_data(plan, Reporter()))
    rows = by_controller(situation, layers, names)
    return {row.name: Figures(row.work or 0.0, row.peak or 0.0) for row in rows}


def prepare(recipe: dict[str, Any]) -> tuple[Any, list[Any], list[Any]]:
    """The policy's engine, the micro-batches of one step of the run, and their reference log-probs."""
    import torch
    from accelerate import Accelerator
    from datasets import load_dataset

    from alignzoo import load_method
    from alignzoo.data.collate import collate
    from alignzoo.logprobs.forward import choose_forward
    from alignzoo.model.load import load_policy, load_tokenizer
    from alignzoo.model.source import find_model
    from alignzoo.objective.objective import Objective
    from alignzoo.plan.settings import Settings
    from alignzoo.step.engine import Engine

    settings = Settings(model=recipe["model"])
    source = find_model(recipe["model"])
    tokenizer: Any = load_tokenizer(source, settings)
    policy = load_policy(source, settings).train()
    texts = load_dataset("json", data_files=recipe["data"], split="train").select(range(recipe["batch-size"]))
    rows = [
        {
            "row_id": number,
            "prompt_ids": tokenizer(row["prompt"]).input_ids,
            "response_ids": [tokenizer(row[name]).input_ids for name in ("chosen", "rejected")],
        }
        for number, row in enumerate(texts)
    ]
    size = recipe["micro-batch-size"]
    batches = [
        collate(rows[first : first + size], tokenizer.pad_token_id, shape="pairs")
        for first in range(0, len(rows), size)
    ]
    forward = choose_forward(policy, batches[0]).forward
    with torch.no_grad():
        references = [forward(policy, batch) for batch in batches]
    return Engine(policy, forward, Objective(load_method("loss", "dpo")), Accelerator(cpu=True), 0), batches, references


def controller_of(name: str, engine: Any) -> tuple[Any, int]:
    """The controller, set up on the engine's model, and its interval in steps."""
    from alignzoo import load_method
    from alignzoo.report import Reporter
    from alignzoo.step.setup import SetupContext

    more = {"select": "random"} if name == "shapo-token" else {}  # which neurons, without a probe
    made = load_method("geometry", name, **more)
    made.setup(SetupContext(engine.model, 0, Reporter(), lambda given: None))
    options = made.options
    return made, getattr(options, "interval", None) or getattr(options, "every", None) or 1


def measured_ratios(recipe: dict[str, Any], names: Sequence[str], rounds: int) -> dict[str, float]:
    """Median ratios of the controllers' steps to the plain one, taken in turns."""
    import torch

    from alignzoo.plugin.registry import registry
    from alignzoo.step.context import StepContext

    torch.set_num_threads(1)
    engine, batches, references = prepare(recipe)
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=1e-9)
    plain, _ = controller_of(PLAIN, engine)
    controllers = {name: controller_of(name, engine) for name in names}
    companions = {card.name for _, card in registry().entries("geometry") if getattr(card, "companion", False)}

    def take(controller: Any, steps: int, *, after: Any = None) -> float:
        began = time.process_time()
        for step in range(steps):
            context = StepContext(engine, batches, references, step)
            controller.step(context)
            optimizer.step()
            (after or controller).after_step(context)
            optimizer.zero_grad(set_to_none=True)
        return (time.process_time() - began) / steps

    ratios: dict[str, list[float]] = {name: [] for name in names}
    take(plain, 1)  # for warming up
    for name, (made, interval) in controllers.items():  # a momentum is zero at first, which costs less
        if name not in companions:
            take(made, interval)
    for _ in range(rounds):
        for name, (made, interval) in controllers.items():
            beside = take(plain, 1)
            seconds = take(plain, interval, after=made) if name in companions else take(made, interval)
            ratios[name].append(2 * seconds / (beside + take(plain, 1)))
    return {name: statistics.median(found) for name, found in ratios.items()}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("controllers", nargs="*", default=CONTROLLERS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    names = [name for name in arguments.controllers if name != PLAIN]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        data, model = write_data(where / "pairs.jsonl"), write_model(where / "model", SHAPES[SHAPE])
        recipe = recipe_of(model, data, {}, where / "run")
        said = foretold(recipe, names)
        found = {PLAIN: 1.0, **measured_ratios(recipe, names, arguments.rounds)}
        print("| controller | time, planned | measured | error | peak, planned | measured | error |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, ratio in found.items():
            run = {**recipe, "geometry": name, "out": str(where / name)}
            if name == "shapo-token":
                run |= {"geometry.select": "random"}
            show(name, said[name], Figures(ratio, run_apart(run, give_back=False)))


def show(name: str, said: Figures, found: Figures) -> None:
    """A row of the table."""
    cells = [f"`{name}`", f"{said.ratio:.2f}", f"{found.ratio:.2f}", f"{said.ratio / found.ratio - 1:+.0%}"]
    cells += [f"{said.peak / GIB:.2f}", f"{found.peak / GIB:.2f}", f"{said.peak / found.peak - 1:+.0%}"]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
