"""Evaluating a model: responses, then verdicts, then figures. Each step reuses what an earlier one has kept in the
folder, so that a killed evaluation resumes, and judging again generates nothing.

    session = model_session("MODEL", alone("evaluation"), report)
    evaluation = evaluate(session, Request(ask([find_suite("xstest")])), Path("out"), report)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignzoo.base.files import check_links
from alignzoo.contract.judge import JudgeContext
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.evaluate.asked import Asked, decoding_facts
from alignzoo.evaluate.earlier import earlier_evaluation, joined
from alignzoo.evaluate.folder import held
from alignzoo.evaluate.responder import Request, Responder, TaskRequest, respond
from alignzoo.evaluate.responses import Generated
from alignzoo.evaluate.results import (
    Against,
    Evaluation,
    JudgeFacts,
    SuiteFacts,
    write_evaluation,
)
from alignzoo.evaluate.tasks.tax import alignment_tax
from alignzoo.evaluate.verdicts.choosing import judges_of
from alignzoo.evaluate.verdicts.figures import agreement_of, counted, difference_of, figure_of
from alignzoo.evaluate.verdicts.judging import VERDICTS, ReadyJudge, judged, kept_verdicts, ready_judge
from alignzoo.plan.plan import Method
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.version import __version__

__all__ = ["Request", "TaskRequest", "evaluate"]


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
        models = [respond(session, request, out, report)]
        if against is not None:
            models.append(respond(against[0], request, _inside(against[1], out), report))
        facts = _judge(models, judges, request, report)
        here, *others = [_with_earlier(model, request, facts, report) for model in models]
        for other, model in zip(others, models[1:], strict=True):
            write_evaluation(model.out, other)
            here = replace(here, against=_compared(models[0], model, request, facts))
        write_evaluation(out, here)
    return here


def _with_earlier(model: Responder, request: Request, facts: Sequence[JudgeFacts], report: Reporter) -> Evaluation:
    """Everything found on one model, with what its folder has of earlier evaluations."""
    earlier = earlier_evaluation(model.out, model.facts, report)
    if earlier is None:
        return _summary(model, request, facts)
    names = {judge.name for judge in facts}
    others = [judge for judge in earlier.judges if judge.name not in names]
    for asked in request.asked:
        answers = [generated.answered for generated in model.responses[asked.name]]
        for judge in others:
            kept = kept_verdicts(model.out / VERDICTS / asked.name / f"{judge.name}.jsonl", answers)
            if kept is not None:
                model.verdicts.setdefault(asked.name, {})[judge.name] = kept
    return joined(earlier, _summary(model, request, [*facts, *others]))


def _inside(folder: Path, out: Path) -> Path:
    if not folder.is_relative_to(out):
        raise UsageError(f"{folder} is not inside {out}", hint="keep the other model's evaluation inside this one's")
    return folder


def _judge(
    models: Sequence[Responder], judges: dict[str, tuple[Method, list[Asked]]], request: Request, report: Reporter
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
            again = f"what was generated and judged is kept in {models[0].out}: the same command resumes"
            error.hint = f"{error.hint}\n{again}" if error.hint else again
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


def _summary(model: Responder, request: Request, judges: Sequence[JudgeFacts]) -> Evaluation:
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
        tasks=model.tasks,
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


def _compared(here: Responder, there: Responder, request: Request, judges: Sequence[JudgeFacts]) -> Against:
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
        if judge in measures
    ]
    tax = None
    if here.tasks is not None and there.tasks is not None:
        tax = alignment_tax(here.tasks, there.tasks, here.out, there.out)
    return Against(
        model=there.facts,
        folder=str(there.out.relative_to(here.out)),
        differences=tuple(differences),
        tax=tax,
    )
