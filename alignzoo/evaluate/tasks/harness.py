"""Tasks of lm-eval on a model in memory: each finished task is kept, and a killed one resumes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pydantic.dataclasses import dataclass as stored

from alignzoo.base.files import write_json, write_text
from alignzoo.base.stored import read_as, sealed, value_digest
from alignzoo.errors import UsageError
from alignzoo.evaluate.tasks.quiet import own_random_state, quiet
from alignzoo.evaluate.tasks.task_data import LoadedTasks, load_tasks
from alignzoo.evaluate.tasks.task_names import check_tasks, choose, task_names
from alignzoo.evaluate.tasks.task_results import (
    FOLDER,
    TaskResult,
    TaskResults,
    differs,
    file_stem,
    group_result,
    task_result,
)
from alignzoo.generate.inference import evaluation_mode
from alignzoo.report import Reporter

__all__ = ["HasModel", "TaskResult", "TaskResults", "check_tasks", "run_tasks"]

_SEEDS = (0, 1234, 1234, 1234)
"""lm-eval's own, of Python, numpy, torch and the choice of few-shot examples."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class HasModel(Protocol):
    """A session, or anything else with a policy and its tokenizer; weights load when the policy is first read."""

    @property
    def policy(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...


@stored(frozen=True)
class _Kept:
    """What a task's file has."""

    identity: dict[str, Any]
    result: TaskResult


@dataclass(frozen=True)
class _Run:
    """The settings of :func:`run_tasks`."""

    out: Path | None
    report: Reporter
    about: Mapping[str, Any]
    limit: float | None
    seed: int | None
    chat_template: bool
    system: str | None
    confirm_unsafe_code: bool
    overwrite: bool
    loaded: LoadedTasks = field(repr=False)

    @property
    def seeds(self) -> tuple[int, int, int, int]:
        return _SEEDS if self.seed is None else (self.seed,) * 4


def run_tasks(
    session: HasModel | Callable[[], Any],
    names: Sequence[str],
    *,
    out: Path | None,
    report: Reporter,
    about: Mapping[str, Any] | None = None,
    limit: float | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    system: str | None = None,
    include_path: str | Path | None = None,
    confirm_unsafe_code: bool = False,
    overwrite: bool = False,
) -> TaskResults:
    """Run tasks, groups, tags, wildcards, capability groups or YAML files of lm-eval on a model.

    The tasks' data is loaded before the model's weights. Finished tasks in ``out`` are not run again.

    Args:
        session: has the policy and the tokenizer; or a function that loads an ``lm_eval.api.model.LM``, called if a
            task is not finished yet.
        out: the evaluation's folder: results go to ``out/tasks/TASK.json``, samples to ``TASK.jsonl``; None keeps
            nothing.
        about: what else answers depend on, such as the identity of the weights and their precision: results with
            another ``about`` are not reused.
        limit: documents a task, or a share of them below 1.
        seed: of Python, numpy, torch and the choice of few-shot examples, as ``lm_eval --seed``; None for lm-eval's
            defaults (0, 1234, 1234, 1234).
        batch_size: sequences at a time; None for automatic.
        num_fewshot: examples in the prompt, as ``lm_eval --num_fewshot``.
        apply_chat_template: prompts through the tokenizer's chat template.
        system: a system instruction.
        include_path: a folder with YAML files of more tasks.
        confirm_unsafe_code: run tasks that run code which the model writes.
        overwrite: replace results of another model or other settings.

    Raises:
        UsageError: an unknown task, one that runs code, or ``out`` has results of another model or other settings.
        DataError: a task's data cannot be loaded.
    """
    check_tasks(names, include_path, confirm_unsafe_code=confirm_unsafe_code)
    known = task_names(names, include_path)
    with quiet(report), own_random_state(*_SEEDS[:3]):
        loaded = load_tasks(choose(names, known, num_fewshot), known, include_path)
    run = _Run(
        out, report, about or {}, limit, seed, apply_chat_template, system, confirm_unsafe_code, overwrite, loaded
    )
    return _results(run, session, batch_size)


def _results(run: _Run, session: Any, batch_size: int | None) -> TaskResults:
    """Results of all tasks: the kept ones, and those computed now; and of their groups."""
    loaded = run.loaded
    kept = {name: _kept(run, name) for name in loaded.tasks}
    results = {name: result for name, result in kept.items() if result is not None}
    if results:
        run.report.note(f"{len(results)} of {len(kept)} tasks are finished already")
    left = [name for name in loaded.tasks if name not in results]
    if left:
        with _language_model(session, run, batch_size) as model:
            for name in left:
                results[name] = _compute(run, name, model)
    for name, group in loaded.groups.items():
        figures = group_result(group, results)
        if figures is not None:
            results[name] = figures
    shown = [  # a group without figures of its own stands for its tasks
        [name] if name in results else [task.task_name for task in loaded.groups[name].get_all_tasks()]
        for name in loaded.chosen
    ]
    chosen = tuple(dict.fromkeys(name for names in shown for name in names))
    return TaskResults(results, chosen, _lm_eval_version(), run.limit, run.seed, run.chat_template)


@contextmanager
def _language_model(session: Any, run: _Run, batch_size: int | None) -> Iterator[Any]:
    """lm-eval's view of the model, which is left in the mode it was in."""
    if callable(session):
        yield session()
        return
    from alignzoo.evaluate.tasks.harness_model import ZooLM

    with evaluation_mode(session.policy):
        with quiet(run.report), own_random_state(*run.seeds[:3]):
            seed = run.seeds[2]
            model = ZooLM(session.policy, session.tokenizer, batch_size=batch_size, seed=seed, report=run.report)
        yield model


def _compute(run: _Run, name: str, model: Any) -> TaskResult:
    """Run one task, and keep its samples and figures."""
    from lm_eval.evaluator import evaluate

    task = run.loaded.tasks[name]
    task.set_fewshot_seed(seed=run.seeds[3])
    identity = _identity(run, name)
    with quiet(run.report), own_random_state(*run.seeds[:3]), _remembering(model, run.out, name, identity) as cached:
        found = evaluate(
            lm=cached,
            task_dict={"tasks": {name: task}, "groups": {}},
            limit=run.limit,
            log_samples=True,
            system_instruction=run.system,
            apply_chat_template=run.chat_template,
            fewshot_as_multiturn=run.chat_template,
            confirm_run_unsafe_code=run.confirm_unsafe_code,
        )
    result = task_result(name, found)
    if run.out is not None:
        _keep(run.out, identity, result, found["samples"][name])
    return result


def _keep(out: Path, identity: Mapping[str, Any], result: TaskResult, samples: Sequence[Mapping[str, Any]]) -> None:
    """Write samples, then figures; the answers kept for resuming are no longer needed."""
    from lm_eval.utils import handle_non_serializable

    lines = [json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) for sample in samples]
    write_text(out / FOLDER / f"{file_stem(result.name)}.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(_path(out, result.name), sealed({"identity": dict(identity), "result": asdict(result)}))
    for path in (out / FOLDER).glob(f"{file_stem(result.name)}.answers-*.db*"):
        path.unlink(missing_ok=True)


@contextmanager
def _remembering(model: Any, out: Path | None, name: str, identity: Mapping[str, Any]) -> Iterator[Any]:
    """The model with lm-eval's cache of answers, so that a killed task resumes where it was."""
    from lm_eval.api.model import CachingLM

    if out is None:
        yield model
        return
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    path = out / FOLDER / f"{file_stem(name)}.answers-{value_digest(identity)[:12]}.db"
    cached = CachingLM(model, str(path))
    try:
        yield cached
    finally:
        cached.dbdict.close()


def _kept(run: _Run, name: str) -> TaskResult | None:
    """The finished result of a task.

    Raises:
        UsageError: it is of another model, or of other settings.
        DamagedError: it cannot be read.
    """
    if run.out is None or not _path(run.out, name).is_file() or run.overwrite:
        return None
    path = _path(run.out, name)
    others = differs(path, _identity(run, name))
    if others:
        raise UsageError(
            f"{path} is of another evaluation: {', '.join(others)} differ{'s' if len(others) == 1 else ''}",
            hint="evaluate to another --out, or replace it with --overwrite",
        )
    return read_as(path, _Kept).result


def _identity(run: _Run, name: str) -> dict[str, Any]:
    """What a task's result depends on."""
    task = run.loaded.tasks[name]
    config = {key: value for key, value in task.dump_config().items() if key != "metadata"}
    text = _ADDRESS.sub("", json.dumps(config, sort_keys=True, default=str))
    return {
        **run.about,
        "lm-eval": _lm_eval_version(),
        "task": value_digest([text, str(task.VERSION), len(task.eval_docs)]),
        "limit": run.limit,
        "seed": run.seed,
        "fewshot": task.get_config("num_fewshot"),
        "chat template": run.chat_template,
        "system prompt": run.system,
    }


def _path(out: Path, name: str) -> Path:
    return out / FOLDER / f"{file_stem(name)}.json"


def _lm_eval_version() -> str:
    return version("lm_eval")
