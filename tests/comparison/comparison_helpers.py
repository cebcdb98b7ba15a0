"""Run and sweep folders with chosen figures, written by alignzoo's own writers without any training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignzoo.base.stored import sealed
from alignzoo.comparison.groups import Group
from alignzoo.contract.result import RunResult
from alignzoo.evaluate.results import (
    Evaluation,
    Figure,
    JudgeFacts,
    ModelFacts,
    Rate,
    SuiteFacts,
    write_evaluation,
)
from alignzoo.evaluate.tasks.task_results import Metric, TaskResult, TaskResults
from alignzoo.plan.planfile import write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.records import read_run

ASR, REFUSAL, BROKEN = "sandbox/asr/test", "sandbox/refusal/benign", "sandbox/broken/test"
Figures = Mapping[str, float]


def write_run(folder: Path, after: Figures, *, identity: str = "rows", steps: int = 2, **words: Any) -> Path:
    """A finished run of these words (``label_noise`` is ``label-noise``) with these figures."""
    dashed = {name.replace("_", "-"): value for name, value in words.items()}
    folder.mkdir(parents=True)
    write_plan(require(resolve([Layer("flag", {"out": str(folder), **dashed})])), folder)
    lines = [{"step": step, "loss": 0.5 / step, "step_seconds": 0.5, "tokens": 100} for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    RunResult(
        folder=str(folder),
        sentence="",
        status="finished",
        steps=steps,
        tokens=100 * steps,
        seconds=2.0 * steps,
        pairs={"train": 10, "held_out": 4, "probe": 0},
        weights=f"weights of {sorted(after.items())}",
        after=dict(after),
        train_identity=identity,
    ).save()
    return folder


def write_sweep(
    folder: Path, axes: Mapping[str, Sequence[Any]], seeds: int, figures: Callable[[Mapping[str, Any], int], Figures]
) -> Path:
    """A sweep over a grid whose runs have what ``figures`` says of the values and the seed; all are finished."""
    cells = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        for seed in range(seeds):
            name = f"cell-{len(cells)}"
            words = {word.replace("-", "_"): value for word, value in point.items() if value != "none"}
            identity = f"seed {seed} noise {point.get('label-noise')}"
            write_run(folder / "runs" / name, figures(point, seed), identity=identity, seed=seed, **words)
            cells.append({"name": name, "values": dict(point), "seed": seed})
    content = {"axes": {word: list(some) for word, some in axes.items()}, "seeds": list(range(seeds)), "cells": cells}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sealed({**content, "recipe": {}}), sort_keys=False))
    return folder


def group(label: str, runs: Mapping[int, Path], block: str = "") -> Group:
    return Group(label, {seed: read_run(path) for seed, path in runs.items()}, block=block)


def evaluated(run: Path, *, digest: str, judge_model: str = "judge-1") -> None:
    """What ``alignzoo eval`` writes, on two prompts of one suite and a task."""
    rate = Rate(1, 2, 0.5, 0.1, 0.9)
    decoding = {"max_new_tokens": 8}
    suite = SuiteFacts("xstest", "xstest", None, "XSTest", "over_refusal", digest, "here", 2, None, decoding, 0, 0, 4.0)
    task = TaskResult("arc", {"acc,none": Metric(0.25, None, True)}, n=4, fewshot=0, version="1")
    found = Evaluation(
        model=ModelFacts("model", "hash", "fp32", "none", "chat template"),
        suites=(suite,),
        judges=(JudgeFacts("keywords", "alignzoo:keywords", "refusal", {}, judge_model, ""),),
        figures=(Figure("xstest", "keywords", "over_refusal", rate, 0, 0.5),),
        tasks=TaskResults({"arc": task}, ("arc",), "0.4"),
    )
    (run / "evaluation").mkdir()
    write_evaluation(run / "evaluation", found)
