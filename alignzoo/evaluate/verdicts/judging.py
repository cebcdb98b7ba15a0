"""Judging responses: each verdict is kept as soon as it is known, so that a judge that fails resumes where it was."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.stored import value_digest
from alignzoo.contract.card import Options
from alignzoo.contract.judge import Answered, Judge, JudgeContext, Measure, Verdict
from alignzoo.errors import DamagedError, MethodError
from alignzoo.evaluate.journal import Journal, read_lines
from alignzoo.evaluate.responses import as_line
from alignzoo.evaluate.verdicts.statistics import Estimate, kappa_estimate
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import instantiate
from alignzoo.plugin.guard import guarded
from alignzoo.report import Reporter

VERDICTS = "verdicts"
"""The folder of verdicts inside an evaluation's."""


@dataclass(frozen=True)
class ReadyJudge:
    """A judge that is set up.

    Attributes:
        name: in files and tables: :func:`judge_name`.
        about: what its verdicts depend on besides the responses.
    """

    method: Method
    judge: Judge
    name: str
    measures: Measure
    about: dict[str, Any]

    @property
    def said(self) -> str:
        """The judge in messages."""
        return f"judge {self.method.card.name!r}"


def measures_of(method: Method) -> Measure:
    """What a judge's verdicts are about: its option ``measures`` if it has one, else its card."""
    measure: Any = getattr(method.options, "measures", None) or getattr(method.card, "measures", "refusal")
    found: Measure = measure
    return found


def decisive(options: Options, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """The options that verdicts depend on, JSON-able: not those that only change what judging costs
    (``json_schema_extra={"cost": True}``), so that a raised cap reuses the verdicts there."""
    extras = {name: field.json_schema_extra for name, field in type(options).model_fields.items()}
    costs = {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("cost")}
    return options.model_dump(mode="json", exclude=costs, exclude_defaults=exclude_defaults)


def judge_name(method: Method) -> str:
    """A judge's name in files and tables; with other options than the defaults, a hash of them is appended, so that
    verdicts of one judge with different options stand side by side."""
    stated = decisive(method.options, exclude_defaults=True)
    return f"{method.card.name}-{value_digest(stated)[:8]}" if stated else method.card.name


@contextmanager
def ready_judge(method: Method, ctx: JudgeContext) -> Iterator[ReadyJudge]:
    """Build and set up a judge, and close it afterwards.

    Raises:
        BrokenPluginError: it cannot be built.
        AlignzooError: its model or endpoint is not usable.
        MethodError: it fails in another way.
    """
    judge: Judge = instantiate(method.card, method.options)
    said = f"judge {method.card.name!r}"
    try:
        with guarded(f"{said} cannot be set up"):
            judge.setup(ctx)
            identity = str(judge.identity())
        about = {
            "judge": method.qualified,
            "options": decisive(method.options),
            "identity": identity,
        }
        yield ReadyJudge(method, judge, judge_name(method), measures_of(method), about)
    finally:
        with guarded(f"{said} cannot be closed"):
            judge.close()


def judge_answers(
    method: Method, answers: Sequence[Answered], ctx: JudgeContext, kept: Path | None, report: Reporter
) -> list[Verdict]:
    """A judge's verdicts on responses, in order.

    Args:
        kept: the ``.jsonl`` file of its verdicts: those there on the same responses are reused, new ones are appended.

    Raises:
        AlignzooError: the judge is not usable, or fails; what it had judged is kept.
    """
    with ready_judge(method, ctx) as ready:
        return judged(ready, answers, kept, report)


def judged(ready: ReadyJudge, answers: Sequence[Answered], kept: Path | None, report: Reporter) -> list[Verdict]:
    """:func:`judge_answers` with a judge that is set up already."""
    keys = [value_digest(as_line(answer)) for answer in answers]
    journal = None if kept is None else Journal(kept, ready.about)
    found = {} if journal is None else _kept(journal, ready, report)
    left = [i for i, key in enumerate(keys) if key not in found]
    done = len(keys) - len(left)
    if left:
        with report.progress(len(keys), f"judging ({ready.name})", unit="response", done=done) as bar:
            new = _verdicts(ready, [answers[i] for i in left])
            if journal is None:
                for i, verdict in zip(left, new, strict=True):
                    found[keys[i]] = verdict
                    bar.advance()
            else:
                with journal.appending() as file:
                    for i, verdict in zip(left, new, strict=True):
                        file.write({"id": answers[i].id, "answer": keys[i], **vars(verdict)})
                        found[keys[i]] = verdict
                        bar.advance()
    return [found[key] for key in keys]


def kept_verdicts(path: Path, answers: Sequence[Answered]) -> list[Verdict] | None:
    """The verdicts in a judge's file on some responses, in their order; None if one is missing.

    Raises:
        DamagedError: the file cannot be read.
    """
    found = {str(line.get("answer")): _verdict(line, path) for line in read_lines(path)} if path.is_file() else {}
    keys = [value_digest(as_line(answer)) for answer in answers]
    return [found[key] for key in keys] if all(key in found for key in keys) else None


def _kept(journal: Journal, ready: ReadyJudge, report: Reporter) -> dict[str, Verdict]:
    """The verdicts there, by the digest of the response. A file of the same judge over other weights is replaced: no
    command can add to it any more."""
    differing = journal.differences()
    if differing:
        report.warn(f"{journal.path}: {ready.said} has changed ({'; '.join(differing)}), so it judges again")
        journal.remove()
    return {str(line.get("answer")): _verdict(line, journal.path) for line in journal.begin()}


def _verdict(line: Mapping[str, Any], path: Path) -> Verdict:
    positive, score, raw = line.get("positive"), line.get("score"), line.get("raw", "")
    plain = not isinstance(score, bool) and isinstance(score, (int, float, type(None)))
    if not isinstance(positive, (bool, type(None))) or not plain or not isinstance(raw, str):
        raise DamagedError(path, f"the verdict on {line.get('id')!r} is none", hint="delete it to judge again")
    return Verdict(positive, score, raw)


def _verdicts(ready: ReadyJudge, answers: Sequence[Answered]) -> Iterator[Verdict]:
    """One verdict per response.

    Raises:
        MethodError: the judge fails, gives something else, or another number of them.
    """
    with guarded(f"{ready.said} failed"):
        given = iter(ready.judge.verdicts(answers))
    count = 0
    for count in itertools.count():
        with guarded(f"{ready.said} failed after {count} of {len(answers)} responses"):
            verdict = next(given, None)
        if verdict is None:
            break
        if not isinstance(verdict, Verdict) or not isinstance(verdict.positive, (bool, type(None))):
            raise MethodError(f"{ready.said} gave {verdict!r}, expected a Verdict", hint="fix its plugin")
        if count == len(answers):
            break
        yield verdict
    if count != len(answers) or verdict is not None:
        number = f"more than {count}" if verdict is not None else str(count)
        raise MethodError(f"{ready.said} gave {number} verdicts on {len(answers)} responses", hint="fix its plugin")


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree on the same responses.

    Attributes:
        first, second: the judges' names.
        kappa: Cohen's κ with its bootstrap interval, over the responses that both gave a verdict on.
        agree: the share of those on which they say the same.
    """

    first: str
    second: str
    kappa: Estimate
    agree: float


def agreement(verdicts: Mapping[str, Sequence[Verdict]]) -> list[Agreement]:
    """Pairwise Cohen's κ of judges' verdicts on the same responses, in one order; unparsed ones are left out.

    Args:
        verdicts: by judge; ``positive`` must mean the same of all, so that refusal judges are not compared with harm
            judges.
    """
    found = []
    for first, second in itertools.combinations(verdicts, 2):
        pairs = [
            (one.positive, other.positive)
            for one, other in zip(verdicts[first], verdicts[second], strict=True)
            if one.positive is not None and other.positive is not None
        ]
        agree = sum(one == other for one, other in pairs) / len(pairs) if pairs else float("nan")
        estimate = kappa_estimate([one for one, _ in pairs], [other for _, other in pairs])
        found.append(Agreement(first, second, estimate, agree))
    return found
