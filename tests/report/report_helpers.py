"""Run and sweep folders written by alignzoo's own writers without training, and pages read by a parser."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from alignzoo.base.stored import sealed
from alignzoo.contract.result import RunResult
from alignzoo.plan.planfile import write_plan
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import require, resolve
from alignzoo.records.sweep import Failure

EVIL = "</script><script>alert('x')</script><b>bold</b>"


def start_run(folder: Path, **words: Any) -> Path:
    """A run of these words (``label_noise`` is ``label-noise``) that has not taken a step."""
    dashed = {name.replace("_", "-"): value for name, value in words.items()}
    folder.mkdir(parents=True)
    write_plan(require(resolve([Layer("flag", {"out": str(folder), **dashed})])), folder)
    return folder


def log_steps(folder: Path, steps: int, shift: float = 0.0) -> None:
    lines = [
        {
            "step": step,
            "loss": 0.7 - 0.3 * step / steps + shift,
            "rewards/margins": step / steps + shift,
            "logps/chosen": -20.0 - step / steps,
            "logps/rejected": -22.0 - 5 * step / steps,
            "step_seconds": 0.05,
            "tokens": 100,
        }
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def finish_run(folder: Path, after: Mapping[str, float], before: Mapping[str, float] | None = None) -> Path:
    counts = {"train": 10, "held_out": 4, "probe": 0}
    result = RunResult(str(folder), "", "finished", 2, 200, 4.0, counts, "abc", dict(before or {}), dict(after), "rows")
    result.save()
    return folder


def write_sweep(
    folder: Path,
    axes: Mapping[str, Sequence[Any]],
    seeds: int,
    *,
    steps: int = 6,
    failed: Mapping[str, str] | None = None,
) -> Path:
    """A sweep whose runs are finished, but for the failed ones, by name ``VALUE_…_sSEED``, with their errors."""
    cells = []
    (folder / "failures").mkdir(parents=True)
    for values in itertools.product(*axes.values()):
        for seed in range(seeds):
            point = dict(zip(axes, values, strict=True))
            name = "_".join(map(str, (*values, f"s{seed}")))
            cells.append({"name": name, "values": point, "seed": seed})
            if failed and name in failed:
                failure = sealed(asdict(Failure(failed[name], "try again", 1)))
                (folder / "failures" / f"{name}.json").write_text(json.dumps(failure))
                continue
            words = {word: value for word, value in point.items() if value != "none"}
            run = start_run(folder / "runs" / name, seed=seed, **words)
            log_steps(run, steps, shift=0.01 * seed)
            asr = 0.2 + 0.1 * next(iter(axes.values())).index(values[0]) + 0.01 * seed * (1 + len(cells) % 3)
            finish_run(run, {"sandbox/asr/test": asr, "sandbox/refusal/benign": 0.4 - asr, "sandbox/broken/test": 0.01})
    content = {"axes": {word: list(some) for word, some in axes.items()}, "seeds": list(range(seeds)), "cells": cells}
    text = yaml.safe_dump(sealed({**content, "recipe": {"flag": {"max-steps": 2}}}), sort_keys=False)
    (folder / "sweep.yaml").write_text(text)
    return folder


class Read(HTMLParser):
    """The elements of a page: ``(tag, attributes)`` in order, scripts, and all visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def charts(self) -> dict[str, Any]:
        """The specifications of the page's charts."""
        kinds = [attributes.get("type") for attributes in self.all("script")]
        found: dict[str, Any] = json.loads(self.scripts[kinds.index("application/json")])
        return found
