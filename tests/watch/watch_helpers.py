"""Run and sweep folders as a run leaves them at every moment, written by the same functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignzoo.base.lock import lock, unlock
from alignzoo.base.stored import sealed
from alignzoo.contract.result import RunResult
from alignzoo.plan.planfile import write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.report import Reporter


@dataclass(frozen=True)
class Run:
    """A run folder that a test fills as a run would."""

    folder: Path
    steps: int = 10

    def begin(self, **values: Any) -> None:
        """Take the folder, as this process, and write the plan and how many steps there will be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock(self.folder, Reporter())
        write_plan(require(resolve([Layer("flag", {"out": str(self.folder), **values})])), self.folder)
        (self.folder / "data.json").write_text(json.dumps({"training": {"rows": 99, "steps": self.steps}}))

    def step(self, number: int, **figures: float) -> None:
        line = {"step": number, "loss": 1 / number, "rewards/margins": number / 10, "step_seconds": 0.5, "tokens": 1000}
        with (self.folder / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps(line | figures) + "\n")

    def end(self) -> None:
        """Let go of the folder; without a result the run was interrupted."""
        unlock(self.folder)

    def finish(self, seconds: float = 5.0) -> None:
        RunResult(
            str(self.folder), "", "finished", self.steps, 0, seconds, {}, "", after={"eval/rewards/accuracies": 0.875}
        ).save()
        self.end()


def write_sweep(folder: Path, seeds: int = 2, losses: tuple[str, ...] = ("dpo", "simpo")) -> list[str]:
    """``sweep.yaml`` of losses × seeds; returns the names of the cells."""
    folder.mkdir(parents=True)
    cells = [
        {"name": f"{loss}-{seed}", "values": {"loss": loss}, "seed": seed} for loss in losses for seed in range(seeds)
    ]
    content = {"axes": {"loss": list(losses)}, "seeds": list(range(seeds)), "cells": cells, "recipe": {}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sealed(content)))
    return [str(cell["name"]) for cell in cells]


def write_failure(folder: Path, cell: str, error: str) -> None:
    (folder / "failures").mkdir(exist_ok=True)
    facts = {"error": error, "hint": None, "exit_code": 1}
    (folder / "failures" / f"{cell}.json").write_text(json.dumps(sealed(facts)))
