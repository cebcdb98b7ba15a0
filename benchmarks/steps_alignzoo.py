"""The steps of an alignzoo run, in a process of their own; :mod:`against_trl` starts it.

Everything from the tokenised pairs on is what ``alignzoo run --loss dpo`` does, with its defaults; tokenisation,
held-out pairs and checkpoints are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measured import Clock, Job

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignzoo.observers import RunObserver
    from alignzoo.train.loop import Loop


def loop_of(job: Job, observer: RunObserver | None = None, model: PreTrainedModel | None = None) -> Loop:
    """The run's loop, ready for its first step.

    Args:
        model: trained in place of the weights in the job's folder, which then gives the tokenizer alone; where it is,
            the run takes place.
    """
    import torch
    from accelerate import Accelerator

    from alignzoo.model.load import as_policy
    from alignzoo.observers import Observers
    from alignzoo.plan.recipe import Layer, flatten
    from alignzoo.plan.resolve import require, resolve
    from alignzoo.report import Reporter
    from alignzoo.session.session import Session
    from alignzoo.train.begin import begin

    torch.set_num_threads(job.threads)
    plan = require(resolve([Layer("python", flatten(_recipe(job), "the benchmark"))]))
    on_a_cpu = model is None or model.device.type == "cpu"
    accelerator = Accelerator(cpu=on_a_cpu, mixed_precision="bf16" if job.precision == "bf16" else "no")
    session = Session(plan, accelerator, Reporter())
    session.parts = _parts(job)
    if model is not None:
        if session.settings.weights == "bf16":
            from alignzoo.model.narrow import narrowed

            narrowed(model.to(torch.bfloat16))
        session.policy = as_policy(model, session.source, plan.settings).to(accelerator.device)
    observers = Observers({"benchmark": observer} if observer else {}, session.report)
    folder = Path(job.scratch)
    loop = begin(session, folder, observers=observers)
    observers.tell("start", folder, {}, loop.steps)
    loop.save = lambda: None  # type: ignore[method-assign]  # no part of a step
    return loop


def _recipe(job: Job) -> dict[str, Any]:
    adapter = {"lora": {"r": job.lora, "alpha": job.lora}} if job.lora else {}
    recipe = {
        **adapter,
        "loss": "dpo",
        "model": job.model,
        "data": job.tokens,
        "batch-size": job.pairs,
        "micro-batch-size": job.pairs,
        "max-steps": job.steps + 1,
        "max-length": job.max_length,
        "precision": job.precision,
        "reference-cache": job.cached,
        "activation-checkpointing": job.checkpointing,
        "lr": job.lr,
        "schedule": "constant",
        "warmup-steps": 0,
        "seed": job.seed,
        **job.settings,
    }
    return {flag: value for flag, value in recipe.items() if value is not None}


def _parts(job: Job) -> Any:
    """The pairs, each in the row where the run's own shuffling looks for it."""
    from datasets import Dataset

    from alignzoo.data.parts import Parts
    from alignzoo.data.stream import PairStream

    columns = json.loads(Path(job.tokens).read_text())
    count = (job.steps + 1) * job.pairs
    stream = PairStream(count, job.pairs, job.seed)
    row_of = [row for step in range(job.steps + 1) for row in stream.indices(step)]
    placed: dict[str, list[Any]] = {name: [None] * count for name in columns}
    for name, values in columns.items():
        for row, value in zip(row_of, values[:count], strict=True):
            placed[name][row] = value
    responses = [list(pair) for pair in zip(placed["chosen_ids"], placed["rejected_ids"], strict=True)]
    columns = {"row_id": list(range(count)), "prompt_ids": placed["prompt_ids"], "response_ids": responses}
    train = Dataset.from_dict(columns)
    highest = max(max(ids) for values in placed.values() for ids in values)
    return Parts(train, None, None, None, {}, "the benchmark's pairs", highest, {})


def main() -> None:
    job, began = Job.from_command_line()
    take_steps(job, began)


def take_steps(job: Job, began: float, make_model: Callable[[], PreTrainedModel] | None = None) -> None:
    """Time the steps and print what was measured.

    Args:
        make_model: see ``model`` of :func:`loop_of`.
    """
    clock = Clock(began)
    import alignzoo.train.begin  # noqa: F401
    from alignzoo.observers import RunObserver

    clock.imports_done()
    seen: list[Mapping[str, Any]] = []

    class Watch(RunObserver):
        def on_step_end(self, step: int, metrics: Mapping[str, Any]) -> None:
            clock.step_done()
            seen.append(metrics)

    loop = loop_of(job, Watch(), make_model() if make_model else None)
    clock.first_step()
    loop.run()
    clock.show(
        trainer=f"alignzoo {version('alignzoo')}",
        weights=sum(weight.numel() * weight.element_size() for weight in loop.engine.model.parameters()),
        losses=[metrics["loss"] for metrics in seen],
        chosen=[metrics["logps/chosen"] for metrics in seen],
        rejected=[metrics["logps/rejected"] for metrics in seen],
    )


if __name__ == "__main__":
    main()
