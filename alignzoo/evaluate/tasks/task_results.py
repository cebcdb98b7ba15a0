"""What tasks of lm-eval gave: figures of tasks and groups, and each document's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from alignzoo.base.stored import read_object
from alignzoo.errors import DamagedError

FOLDER = "tasks"
"""Inside an evaluation's folder."""
TASK_COLUMNS = ("task", "metric", "value", "standard error", "few-shot", "documents")
_STDERR = "_stderr"


@dataclass(frozen=True)
class Metric:
    """A figure of a task.

    Attributes:
        value: as lm-eval aggregates it over documents.
        stderr: its standard error; None where lm-eval gives none.
        higher_is_better: None if the task does not say.
    """

    value: float
    stderr: float | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class TaskResult:
    """A task's or group's figures.

    Attributes:
        name: lm-eval's.
        metrics: figures by lm-eval's names, ``METRIC,FILTER``.
        n: documents.
        fewshot: examples in each prompt; None for a group of tasks that differ.
        version: the task's.
        tasks: the tasks of a group; empty for a task.
    """

    name: str
    metrics: dict[str, Metric]
    n: int
    fewshot: int | None
    version: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskResults:
    """The results of one model.

    Attributes:
        results: tasks and groups by name.
        chosen: the tasks and groups that were asked for, those of a capability group or tag one by one.
        lm_eval: the version.
        limit: documents a task (a share, below 1); None for all.
        seed: the seed of lm-eval's four generators; None for its defaults.
        chat_template: whether prompts had the tokenizer's chat template.
    """

    results: dict[str, TaskResult]
    chosen: tuple[str, ...]
    lm_eval: str
    limit: float | None = None
    seed: int | None = None
    chat_template: bool = False


def file_stem(task: str) -> str:
    """The name of a task's files, without their ending."""
    return re.sub(r"[^\w.+-]+", "_", task)


def task_result(name: str, found: Mapping[str, Any]) -> TaskResult:
    """The result of one task in what ``lm_eval.evaluator.evaluate`` returns."""
    better = found["higher_is_better"].get(name) or {}
    return TaskResult(
        name=name,
        metrics=_metrics(found["results"][name], better),
        n=int(found["n-samples"][name]["effective"]),
        fewshot=int(found["n-shot"].get(name) or 0),
        version=str(found["versions"].get(name)),
    )


def group_result(group: Any, results: Mapping[str, TaskResult]) -> TaskResult | None:
    """A group's figures, as lm-eval aggregates those of its tasks; None if it aggregates none."""
    names = tuple(task.task_name for task in group.get_all_tasks())
    figures = group.aggregate({name: _as_lm_eval(results[name]) for name in names})
    better = {
        key.partition(",")[0]: metric.higher_is_better for n in names for key, metric in results[n].metrics.items()
    }
    metrics = _metrics(figures, better)
    if not metrics:
        return None
    fewshot = {results[name].fewshot for name in names}
    return TaskResult(
        name=group.name,
        metrics=metrics,
        n=int(figures["sample_len"]),
        fewshot=fewshot.pop() if len(fewshot) == 1 else None,
        version=str(group.version),
        tasks=names,
    )


def task_rows(results: TaskResults) -> list[list[str]]:
    """Rows for a table with :data:`TASK_COLUMNS`: every metric of what was asked for."""
    return [
        [
            name,
            key.removesuffix(",none"),
            f"{metric.value:.3f}",
            "-" if metric.stderr is None else f"{metric.stderr:.3f}",
            "-" if result.fewshot is None else str(result.fewshot),
            str(result.n),
        ]
        for name in results.chosen
        for result in [results.results[name]]
        for key, metric in result.metrics.items()
    ]


def sample_values(folder: Path, result: TaskResult, metric: str) -> dict[str, float] | None:
    """Each document's value of a metric by task and document; None if documents have no numbers for it.

    Args:
        folder: the evaluation's.

    Raises:
        DamagedError: a file of samples is missing or cannot be read.
    """
    name, _, chosen = metric.partition(",")
    values: dict[str, float] = {}
    for task in result.tasks or (result.name,):
        path = folder / FOLDER / f"{file_stem(task)}.jsonl"
        try:
            samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise DamagedError(path, str(error), hint="delete the task's .json, and evaluate again") from error
        for sample in samples:
            if sample.get("filter") != chosen:
                continue
            value = sample.get(name)
            if not isinstance(value, int | float):
                return None
            values[f"{task}/{sample['doc_id']}"] = float(value)
    return values or None


def differs(path: Path, identity: Mapping[str, Any]) -> list[str]:
    """In what a kept task differs from the identity asked for.

    Raises:
        DamagedError: it cannot be read.
    """
    kept = read_object(path).get("identity")
    if not isinstance(kept, dict):
        raise DamagedError(path, "it has no identity")
    return [name for name in sorted({*kept, *identity}) if kept.get(name) != identity.get(name)]


def _metrics(figures: Mapping[str, Any], better: Mapping[str, bool | None]) -> dict[str, Metric]:
    metrics = {}
    for key, value in figures.items():
        name, comma, chosen = key.partition(",")
        if not comma or name.endswith(_STDERR) or not isinstance(value, int | float):
            continue
        stderr = figures.get(f"{name}{_STDERR},{chosen}")
        known = float(stderr) if isinstance(stderr, int | float) else None
        metrics[key] = Metric(float(value), known, better.get(name))
    return metrics


def _as_lm_eval(result: TaskResult) -> dict[str, Any]:
    """A task's figures as ``Group.aggregate`` reads them."""
    figures: dict[str, Any] = {"alias": result.name, "name": result.name, "sample_len": result.n}
    for key, metric in result.metrics.items():
        name, _, chosen = key.partition(",")
        figures[key] = metric.value
        figures[f"{name}{_STDERR},{chosen}"] = "N/A" if metric.stderr is None else metric.stderr
    return figures
