"""Evaluating a model: responses, then verdicts, then figures. Each step reuses what an earlier one has kept in the
folder, so that a killed evaluation resumes, and judging again generates nothing.

    session = model_session("MODEL", alone("evaluation"), report)
    evaluation = evaluate(session, Request(ask([find_suite("xstest")])), Path("out"), report)
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignzoo.base.files import check_links
from alignzoo.contract.judge import JudgeContext, Verdict
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.evaluate.asked import Asked, decoding_facts
from alignzoo.evaluate.choosing import judges_of
from alignzoo.evaluate.figures import agreement_of, counted, difference_of, figure_of, judges_suite
from alignzoo.evaluate.folder import held
from alignzoo.evaluate.generating import journal_of, kept_responses, responses_to
from alignzoo.evaluate.identity import model_identity
from alignzoo.evaluate.judging import VERDICTS, ReadyJudge, judged, ready_judge
from alignzoo.evaluate.responses import Generated
from alignzoo.evaluate.results import (
    Against,
    Evaluation,
    JudgeFacts,
    ModelFacts,
    SuiteFacts,
    write_evaluation,
)
from alignzoo.generate.prompts import Prompting
from alignzoo.lazy import torch
from alignzoo.plan.plan import Method
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.version import __version__


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
    """

    asked: Sequence[Asked]
    judges: Sequence[Method] = ()
    tasks: TaskRequest | None = None
    system: str | None = None
    batch_size: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class TaskRequest:
    """Which tasks of lm-eval to run, and how: the words of :func:`~alignzoo.evaluate.harness.run_tasks`."""

    names: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Model:
    """A model in evaluation, with what was found so far: responses and verdicts by the name of their suite."""

    session: Session
    out: Path
    facts: ModelFacts
    responses: dict[str, list[Generated]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, list[Verdict]]] = field(default_factory=dict)
    tasks: Any = None


def evaluate(
    session: Session,
    request: Request,
    out: Path,
    report: Reporter,
    *,
    against: tuple[Session, Path] | None = None,
) -> Evaluation:
    """Evaluate a model, write everything into a folder, and return the content of its ``evaluation.json``.

    Args:
        session: of the model, without data: :func:`~alignzoo.session.subject.model_session`. Its weights are loaded
            only if something has to be generated.
        out: the folder. What it has of this evaluation is reused.
        against: another model to compare with, and the folder of its evaluation, inside ``out``.

    Raises:
        UsageError: the folder has responses of another model, suite or decoding (with what differs), or another
            process uses it.
        AlignzooError: the model does not load, or a judge fails; what was generated and judged is kept.
    """
    judges = judges_of(request.asked, request.judges)
    with held(out, report):
        check_links(out)
        models = [_respond(session, request, out, report)]
        if against is not None:
            models.append(_respond(against[0], request, _inside(against[1], out), report))
        facts = _judge(models, judges, request, report)
        here, *others = [_summary(model, request, facts) for model in models]
        for other, model in zip(others, models[1:], strict=True):
            write_evaluation(model.out, other)
            here = replace(here, against=_compared(models[0], model, request, facts))
        write_evaluation(out, here)
    return here


def _inside(folder: Path, out: Path) -> Path:
    if not folder.is_relative_to(out):
        raise UsageError(f"{folder} is not inside {out}", hint="keep the other model's evaluation inside this one's")
    return folder


def _respond(session: Session, request: Request, out: Path, report: Reporter) -> _Model:
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
    )
    model = _Model(session, out, facts)
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
            lambda: session.policy,
            session.tokenizer,
            prompting,
            journal=journals[asked.name],
            batch_size=request.batch_size,
            report=report,
        )
    if request.tasks is not None:
        model.tasks = _run_tasks(model, request, request.tasks, report)
    if from_files:
        _release(session)
    return model


def _conflicts(asked: Asked, journal: Any) -> bool:
    try:
        kept_responses(asked, journal)
    except AlignzooError:
        return True
    return False


def _run_tasks(model: _Model, request: Request, tasks: TaskRequest, report: Reporter) -> Any:
    from alignzoo.evaluate.harness import run_tasks

    return run_tasks(
        model.session,
        tasks.names,
        out=model.out,
        report=report,
        identity=model.facts.identity,
        batch_size=request.batch_size,
        system=request.system,
        overwrite=request.overwrite,
        **tasks.options,
    )


def _release(session: Session) -> None:
    """Free the policy's memory for what comes next: a judge, or the other model."""
    if vars(session).pop("policy", None) is not None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _judge(
    models: Sequence[_Model], judges: dict[str, tuple[Method, list[Asked]]], request: Request, report: Reporter
) -> list[JudgeFacts]:
    """Let each judge judge everything it applies to, one judge after the other."""
    found = []
    for name, (method, asked) in judges.items():
        session = models[0].session
        ctx = JudgeContext(session.accelerator.device, report, trust_remote_code=session.settings.trust_remote_code)
        try:
            with ready_judge(method, ctx) as ready:
                for model in models:
                    for one in asked:
                        kept = model.out / VERDICTS / one.name / f"{name}.jsonl"
                        of_it = model.verdicts.setdefault(one.name, {})
                        answers = [generated.answered for generated in model.responses[one.name]]
                        of_it[name] = judged(ready, answers, kept, report)
                found.append(_facts(ready))
        except AlignzooError as error:
            error.hint = (
                f"{error.hint or 'repair it'}; then repeat the command: it goes on from what is in {models[0].out}"
            )
            raise
    return found


def _facts(ready: ReadyJudge) -> JudgeFacts:
    card = ready.method.card
    return JudgeFacts(
        name=ready.name,
        judge=ready.method.qualified,
        measures=ready.measures,
        options=ready.about["options"],
        identity=ready.about["identity"],
        limits=getattr(card, "limits", ""),
    )


def _summary(model: _Model, request: Request, judges: Sequence[JudgeFacts]) -> Evaluation:
    """Everything found on one model."""
    measures: dict[str, Any] = {judge.name: judge.measures for judge in judges}
    suites, figures, agreements = [], [], []
    for asked in request.asked:
        responses, verdicts = model.responses[asked.name], model.verdicts.get(asked.name, {})
        suites.append(suite_facts(asked, responses))
        for judge, of_it in verdicts.items():
            figures.append(figure_of(asked.name, asked.suite.measures, judge, measures[judge], responses, of_it))
        agreements += agreement_of(asked.name, asked.suite.measures, verdicts, measures)
    return Evaluation(
        model=model.facts,
        suites=tuple(suites),
        judges=tuple(judges),
        figures=tuple(figures),
        agreement=tuple(agreements),
        tasks=None if model.tasks is None else asdict(model.tasks),
        alignzoo=__version__,
    )


def suite_facts(asked: Asked, responses: Sequence[Generated]) -> SuiteFacts:
    """What was generated on a suite."""
    suite = asked.suite
    return SuiteFacts(
        name=asked.name,
        suite=suite.name,
        jailbreak=asked.jailbreak,
        title=suite.title,
        measures=suite.measures,
        digest=asked.digest,
        origin=asked.origin,
        prompts=len(responses),
        whole=suite.counts,
        decoding=decoding_facts(asked.decoding),
        cut=sum(not generated.ended for generated in responses),
        empty=sum(not generated.answered.response.strip() for generated in responses),
        tokens=sum(generated.tokens for generated in responses) / len(responses),
        notes=asked.notes,
    )


def _compared(here: _Model, there: _Model, request: Request, judges: Sequence[JudgeFacts]) -> Against:
    """Both models on the same prompts under the same judges."""
    measures: dict[str, Any] = {judge.name: judge.measures for judge in judges}
    differences = [
        difference_of(
            asked.name,
            judge,
            counted(verdicts, measures[judge], asked.suite.measures),
            counted(there.verdicts[asked.name][judge], measures[judge], asked.suite.measures),
        )
        for asked in request.asked
        for judge, verdicts in here.verdicts.get(asked.name, {}).items()
        if judges_suite(measures[judge], asked.suite.measures)
    ]
    return Against(model=there.facts, folder=str(there.out.relative_to(here.out)), differences=tuple(differences))
