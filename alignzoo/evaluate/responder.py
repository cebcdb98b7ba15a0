"""A model in evaluation: what it is, and its responses and tasks, generated or kept."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from alignzoo.contract.judge import Verdict
from alignzoo.errors import AlignzooError
from alignzoo.evaluate.asked import Asked
from alignzoo.evaluate.generating import journal_of, kept_responses, responses_to
from alignzoo.evaluate.identity import model_identity
from alignzoo.evaluate.journal import Journal
from alignzoo.evaluate.responses import Generated
from alignzoo.evaluate.results import ModelFacts
from alignzoo.evaluate.tasks.task_results import TaskResults
from alignzoo.generate.prompts import Prompting
from alignzoo.lazy import torch
from alignzoo.plan.plan import Method
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.session.subject import inference_policy


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        asked: suites with their prompts.
        judges: on every suite that they apply to; none: each suite's own, or the refusal judge.
        tasks: of lm-eval.
        system: a system prompt.
        batch_size: prompts at a time; None chooses it.
        overwrite: replace what the folder has of another evaluation.
        backend: what generates and runs tasks: ``native`` or ``vllm``.
    """

    asked: Sequence[Asked]
    judges: Sequence[Method] = ()
    tasks: TaskRequest | None = None
    system: str | None = None
    batch_size: int | None = None
    overwrite: bool = False
    backend: str = "native"


@dataclass(frozen=True)
class TaskRequest:
    """Which tasks of lm-eval to run, and how: the words of :func:`~alignzoo.evaluate.tasks.harness.run_tasks`."""

    names: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Responder:
    """A model in evaluation, with what was found so far: responses and verdicts by the name of their suite."""

    session: Session
    out: Path
    facts: ModelFacts
    responses: dict[str, list[Generated]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, list[Verdict]]] = field(default_factory=dict)
    tasks: TaskResults | None = None


def respond(session: Session, request: Request, out: Path, report: Reporter) -> Responder:
    """Generate what is missing, and run the tasks; the model's weights are released afterwards."""
    from_files = "policy" not in vars(session)
    prompting = Prompting(session.tokenizer, request.system)
    facts = ModelFacts(
        name=session.settings.model,
        identity=model_identity(session),
        precision=session.settings.precision,
        quantize=session.settings.quantize,
        prompting=prompting.described,
        system=request.system,
        backend=request.backend,
    )
    by_vllm = cache(lambda: _vllm(session))
    model = Responder(session, out, facts)
    about = {**asdict(facts)}
    name = about.pop("name")
    journals = {asked.name: journal_of(asked, out, name, about) for asked in request.asked}
    for asked in request.asked:  # what the folder has of something else is refused before any weights load
        if request.overwrite and _conflicts(asked, journals[asked.name]):
            report.note(f"{journals[asked.name].path} is replaced")
            journals[asked.name].remove()
        else:
            kept_responses(asked, journals[asked.name])
    for asked in request.asked:
        model.responses[asked.name] = responses_to(
            asked,
            by_vllm if request.backend == "vllm" else lambda: inference_policy(session),
            session.tokenizer,
            prompting,
            journal=journals[asked.name],
            batch_size=request.batch_size,
            report=report,
            backend=request.backend,
        )
    if request.tasks is not None:
        weights = by_vllm if request.backend == "vllm" else _Lazily(session)
        model.tasks = _run_tasks(weights, model, request, request.tasks, report)
    if from_files:
        _release(session)
    return model


def _conflicts(asked: Asked, journal: Journal) -> bool:
    try:
        kept_responses(asked, journal)
    except AlignzooError:
        return True
    return False


def _vllm(session: Session) -> Any:
    """lm-eval's vLLM with the session's model."""
    from alignzoo.evaluate.tasks.backend import vllm_model

    source, dtype = session.source, "bfloat16" if session.settings.precision == "bf16" else "float32"
    return vllm_model(source.adapter or source.base, dtype=dtype)


def _run_tasks(weights: Any, model: Responder, request: Request, tasks: TaskRequest, report: Reporter) -> TaskResults:
    from alignzoo.evaluate.tasks.harness import run_tasks

    facts = model.facts
    return run_tasks(
        weights,
        tasks.names,
        out=model.out,
        report=report,
        about={
            "model": facts.identity,
            "precision": facts.precision,
            "quantize": facts.quantize,
            "backend": facts.backend,
        },
        batch_size=request.batch_size,
        system=request.system,
        overwrite=request.overwrite,
        **tasks.options,
    )


@dataclass(frozen=True)
class _Lazily:
    """A session's model for lm-eval, loaded when it is first read."""

    session: Session

    @property
    def policy(self) -> Any:
        return inference_policy(self.session)

    @property
    def tokenizer(self) -> Any:
        return self.session.tokenizer


def _release(session: Session) -> None:
    """Free the policy's memory for what comes next: a judge, or the other model."""
    if vars(session).pop("policy", None) is not None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
