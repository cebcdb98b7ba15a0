"""``alignzoo eval``: from what was typed to an evaluation. Everything cheap is resolved before any weights load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from alignzoo.base.files import local_path
from alignzoo.distributed.process import alone
from alignzoo.errors import ModelError, UsageError
from alignzoo.evaluate.asked import Asked, Sampling, ask
from alignzoo.evaluate.evaluation import Request, TaskRequest, evaluate
from alignzoo.evaluate.results import Evaluation
from alignzoo.evaluate.suites.jailbreaks import find_jailbreak
from alignzoo.evaluate.suites.suite import Suite, find_suite, suite_names
from alignzoo.evaluate.tasks.backend import check_backend
from alignzoo.evaluate.verdicts.choosing import judges_of
from alignzoo.model.source import file_of
from alignzoo.plan.started import plain_values, plan_as_started
from alignzoo.plugin.registry import registry
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.session.subject import Subject, against, model_plan, subject_of

FOLDER = "evaluation"
"""Of a run's evaluation, inside its folder."""


@dataclass(frozen=True)
class Words:
    """What was typed.

    Attributes:
        where: a model or a run.
        values: judges with their options, and settings of a run.
    """

    where: str
    values: Mapping[str, Any] = field(default_factory=dict)
    suites: Sequence[str] = ()
    tasks: Sequence[str] = ()
    jailbreaks: Sequence[str] = ()
    against: str | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int | None = None
    data_dir: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    system: str | None = None
    num_fewshot: int | None = None
    include_path: str | None = None
    task_chat_template: bool = False
    confirm_run_unsafe_code: bool = False
    overwrite: bool = False
    backend: str = "native"

    @classmethod
    def typed(cls) -> list[str]:
        """The fields that have a flag of their own."""
        return [one.name for one in fields(cls) if one.name not in ("where", "values")]


def folder_of(where: str) -> Path:
    """Where an evaluation goes without ``--out``.

    Raises:
        ModelError: a run folder without a trained model.
    """
    subject = subject_of(where)
    if subject.run is not None:
        return subject.run / FOLDER
    return Path("runs") / f"eval-{_file_name(subject.label)}"


def evaluated(words: Words, out: Path, report: Reporter) -> Evaluation:
    """Evaluate as asked.

    Raises:
        UsageError: an unknown suite, jailbreak, judge or task; nothing to evaluate on; a folder in use or with another
            evaluation.
        DataError: a suite's data is missing.
        AlignzooError: a model does not load, or a judge fails.
    """
    subject = subject_of(words.where)
    _check_folder(subject)
    other = None if words.against is None else against(subject, words.against)
    plan = model_plan(subject.model, words.values)
    _refuse_idle(words)
    check_backend(words.backend, quantize=plan.settings.quantize)
    request = Request(
        asked=_asked(words, subject),
        judges=plan.of("judge"),
        tasks=_tasks(words),
        system=words.system,
        batch_size=words.batch_size,
        overwrite=words.overwrite,
        backend=words.backend,
    )
    judges_of(request.asked, request.judges)
    for note in plan.notes:
        report.note(note)
    accelerator = alone("alignzoo eval")
    session = Session(plan, accelerator, report, uses=None)
    compared = None
    if other is not None:
        plan = model_plan(other.model, {key: value for key, value in words.values.items() if not _is_judge(key)})
        folder = out / f"against-{_file_name(other.label)}"
        compared = (Session(plan, accelerator, report, uses=None), folder)
    return evaluate(session, request, out, report, against=compared)


def _check_folder(subject: Subject) -> None:
    if registry().named_extension("model", subject.model) is not None:
        return
    if local_path(subject.model).is_dir() and not any(
        file_of(subject.model, name) for name in ("config.json", "adapter_config.json")
    ):
        raise ModelError(
            f"{subject.name} is neither the folder of a run nor a model: it has no config.json",
            hint="name a run, a folder with a checkpoint, or a model of the hub",
        )


def _is_judge(key: str) -> bool:
    return key.partition(".")[0] == "judge"


def _refuse_idle(words: Words) -> None:
    """Options that nothing here reads."""
    of_tasks = {
        "--num-fewshot": words.num_fewshot is not None,
        "--include-path": words.include_path is not None,
        "--task-chat-template": words.task_chat_template,
        "--confirm-run-unsafe-code": words.confirm_run_unsafe_code,
    }
    idle = [flag for flag, given in of_tasks.items() if given]
    if idle and not words.tasks:
        raise UsageError(f"{idle[0]} has no effect without --tasks", hint="leave it out, or name tasks")
    alone = bool(words.tasks) and not words.suites
    of_suites = {
        "--jailbreak": bool(words.jailbreaks),
        "--judge": any(_is_judge(key) for key in words.values),
        "--max-new-tokens": words.max_new_tokens is not None,
        "--data-dir": words.data_dir is not None,
    }
    idle = [flag for flag, given in of_suites.items() if given]
    if idle and alone:
        raise UsageError(f"{idle[0]} has no effect without --suite", hint="leave it out, or name suites")
    if words.top_p != 1 and words.temperature == 0:
        raise UsageError("--top-p has no effect on greedy decoding", hint="leave it out, or set --temperature")


def _asked(words: Words, subject: Subject) -> list[Asked]:
    if words.suites:
        suites = [find_suite(name) for name in words.suites]
    else:
        suites = [] if words.tasks else default_suites(subject)
    jailbreaks = [find_jailbreak(name) for name in words.jailbreaks]
    if jailbreaks and all(suite.measures == "over_refusal" for suite in suites):
        raise UsageError(
            f"--jailbreak {words.jailbreaks[0]} wraps harmful requests, and no suite here has any",
            hint="leave it out, or add a suite of harmful requests",
        )
    sampling = Sampling(words.max_new_tokens, words.temperature, words.top_p, words.seed)
    folder = None if words.data_dir is None else local_path(words.data_dir)
    return ask(suites, jailbreaks, data_dir=folder, limit=words.limit, seed=words.seed, sampling=sampling)


def _tasks(words: Words) -> TaskRequest | None:
    if not words.tasks:
        return None
    from alignzoo.evaluate.tasks.harness import check_tasks

    check_tasks(words.tasks, words.include_path, confirm_unsafe_code=words.confirm_run_unsafe_code)
    options = {
        "limit": words.limit,
        "seed": words.seed or None,
        "num_fewshot": words.num_fewshot,
        "include_path": words.include_path,
        "apply_chat_template": words.task_chat_template,
        "confirm_unsafe_code": words.confirm_run_unsafe_code,
    }
    return TaskRequest(words.tasks, options)


def default_suites(subject: Subject) -> list[Suite]:
    """The suites that come with a model, or with the data or model of a run: those of the same plugin.

    Raises:
        UsageError: there are none; says which suites there are, and what each needs.
    """
    known = registry()
    stated = {} if subject.run is None else plain_values(plan_as_started(subject.run))
    named = [("model", subject.model), ("model", stated.get("model")), ("data", stated.get("data"))]
    cards = [known.named_extension(kind, name) for kind, name in named]  # type: ignore[arg-type]
    names = dict.fromkeys(name for card in cards if card is not None for name in known.plugin_of(card).suites)
    if names:
        return [find_suite(name) for name in names]
    listed = "".join(f"\n    {name}: {needed(find_suite(name))}" for name in suite_names())
    absent = (
        "" if local_path(subject.model).exists() else "there is no such folder here: taken for a model of the hub\n"
    )
    raise UsageError(
        f"nothing to evaluate {subject.name} on",
        hint=f"{absent}name suites (--suite NAMES) or lm-eval tasks (--tasks NAMES). Suites, and the data they need:"
        f"{listed}",
    )


def needed(suite: Suite) -> str:
    """What a suite needs before it can be used, in a few words."""
    facts = suite.facts
    if any(source.function is not None for source in facts.sources):
        return "nothing"
    where = [f"{suite.hub} of the hub{' (gated)' if facts.gated else ''}"] if suite.hub else []
    files = next((source.files[0] for source in facts.sources if source.files), None)
    where += [f"{facts.save_as or files} in --data-dir"] if files else []
    return " or ".join(where)


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", label).strip(".") or "model"
