"""What ``alignzoo judge check`` and ``run`` do, and what they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.files import write_json, write_text
from alignzoo.base.shown import printable
from alignzoo.cli.console import print_json, print_lines, print_table
from alignzoo.contract.judge import Answered, JudgeContext, Verdict
from alignzoo.errors import UsageError
from alignzoo.evaluate.verdicts.choosing import check_judges_one
from alignzoo.evaluate.verdicts.judging import VERDICTS, Agreement, agreement, judge_answers, judge_name, measures_of
from alignzoo.evaluate.verdicts.statistics import rate
from alignzoo.plan.plan import Plan
from alignzoo.report import Reporter
from alignzoo_evaluation.judge_figures import Figures, figures
from alignzoo_evaluation.judge_labels import Labelled

CHECK_FILE, JUDGED_FILE, VERDICTS_FILE = "check.json", "judged.json", "verdicts.jsonl"
_EXCERPT = 80
_WORDS = {True: "yes", False: "no", None: "unparsed"}


@dataclass(frozen=True)
class Judged:
    """Verdicts of several judges on the same responses.

    Attributes:
        verdicts: by the judge's name in tables.
        measures: what each judge's verdicts are about.
        limits: what users must know of each.
    """

    answers: list[Answered]
    verdicts: dict[str, list[Verdict]]
    measures: dict[str, str]
    limits: dict[str, str]
    agreement: list[Agreement]


@dataclass(frozen=True)
class Checked:
    """Judges against labels."""

    labelled: Labelled
    judged: Judged
    figures: dict[str, Figures]


def judged_file(plan: Plan, answers: Sequence[Answered], out: Path | None, report: Reporter) -> Judged:
    """Every judge's verdicts on some responses.

    Args:
        out: folder to keep verdicts in, and to reuse them from.

    Raises:
        UsageError: a judge compares two responses, or is a function for a run's own data.
        AlignzooError: a judge is not usable or fails.
    """
    from alignzoo.distributed.process import alone

    methods = plan.of("judge")
    for method in methods:
        check_judges_one(method)
    device, trusting = alone("alignzoo judge").device, plan.settings.trust_remote_code
    ctx = JudgeContext(device, report, trust_remote_code=trusting)
    found: dict[str, list[Verdict]] = {}
    for method in methods:
        kept = None if out is None else out / VERDICTS / f"{judge_name(method)}.jsonl"
        found[judge_name(method)] = judge_answers(method, answers, ctx, kept, report)
    measures = {judge_name(method): str(measures_of(method)) for method in methods}
    limits = {judge_name(method): str(getattr(method.card, "limits", "")) for method in methods}
    alike = [{name: found[name] for name in found if measures[name] == one} for one in dict.fromkeys(measures.values())]
    agreements = [pair for group in alike for pair in agreement(group)]
    return Judged(list(answers), found, measures, limits, agreements)


def checked(plan: Plan, labelled: Labelled, out: Path | None, report: Reporter) -> Checked:
    """Every judge against the labels.

    Raises:
        UsageError: the judges do not all measure the same, or as :func:`judged_file`.
        AlignzooError: a judge is not usable or fails.
    """
    measures = {method.card.name: measures_of(method) for method in plan.of("judge")}
    if len(set(measures.values())) > 1:
        said = ", ".join(f"{name} {what}" for name, what in measures.items())
        raise UsageError(f"these judges measure different things: {said}", hint="check them one at a time")
    judged = judged_file(plan, labelled.answers, out, report)
    found = {name: figures(labelled.labels, verdicts) for name, verdicts in judged.verdicts.items()}
    return Checked(labelled, judged, found)


def show_check(result: Checked, path: str, show: int, *, as_json: bool, out: Path | None) -> None:
    """Print a check, and write it to ``out/check.json``."""
    content = _check_content(result, path)
    if out is not None:
        write_json(out / CHECK_FILE, content)
    if as_json:
        print_json(content)
        return
    labelled, names = result.labelled, result.labelled.columns
    read = ", ".join(f"{what} from {printable(name)!r}" for what, name in names.items())
    print_lines(f"{path}: {len(labelled.labels)} responses, {sum(labelled.labels)} of them positive ({read})", "")
    columns = ["judge", "accuracy", "κ", "precision", "recall", "F1", "unparsed"]
    rows = [
        [name, *map(str, (one.accuracy, one.kappa, one.precision, one.recall, one.f1)), str(one.confusion.unparsed)]
        for name, one in result.figures.items()
    ]
    print_table(columns, rows, "against the labels, with 95 % intervals")
    for name, one in result.figures.items():
        counts = one.confusion
        confusion = [
            ["label positive", str(counts.tp), str(counts.fn), str(counts.unparsed_positive)],
            ["label negative", str(counts.fp), str(counts.tn), str(counts.unparsed_negative)],
        ]
        print_lines("")
        print_table([name, "judged positive", "negative", "unparsed"], confusion, "confusion")
    _show_agreement(result.judged)
    _show_disagreements(result, show)
    _show_limits(result.judged, out)


def show_judged(judged: Judged, path: str, show: int, *, as_json: bool, out: Path | None) -> None:
    """Print verdicts and their summary, and write them to ``out``."""
    summary = {
        name: {
            "measures": judged.measures[name],
            "positive": asdict(rate(sum(v.positive is True for v in verdicts), len(verdicts))),
            "unparsed": sum(v.positive is None for v in verdicts),
        }
        for name, verdicts in judged.verdicts.items()
    }
    content = {"file": path, "responses": len(judged.answers), "judges": summary, **_agreement_content(judged)}
    lines = _verdict_lines(judged)
    if out is not None:
        write_text(out / VERDICTS_FILE, "".join(f"{_json(line)}\n" for line in lines))
        write_json(out / JUDGED_FILE, content)
    if as_json:
        print_json({**content, "verdicts": lines})
        return
    rows = []
    for name, verdicts in judged.verdicts.items():
        positive = rate(sum(v.positive is True for v in verdicts), len(verdicts))
        rows.append([name, judged.measures[name], str(positive), str(summary[name]["unparsed"]), str(len(verdicts))])
    print_table(["judge", "measures", "positive", "unparsed", "responses"], rows, "verdicts, with 95 % intervals")
    _show_agreement(judged)
    if show:
        print_lines("")
        table = [
            [answer.id, *(_WORDS[judged.verdicts[name][i].positive] for name in judged.verdicts), _excerpt(answer)]
            for i, answer in enumerate(judged.answers[:show])
        ]
        print_table(["id", *judged.verdicts, "response"], table, "response")
        if len(judged.answers) > show:
            print_lines(f"… and {len(judged.answers) - show} more: --out DIR keeps all of them")
    _show_limits(judged, out)


def _check_content(result: Checked, path: str) -> dict[str, Any]:
    labelled = result.labelled
    return {
        "file": path,
        "responses": len(labelled.labels),
        "positive": sum(labelled.labels),
        "columns": labelled.columns,
        "positive_values": labelled.positive,
        "judges": {
            name: {"measures": result.judged.measures[name], **one.as_json()} for name, one in result.figures.items()
        },
        **_agreement_content(result.judged),
        "disagreements": {
            name: [_disagreement(result, name, i) for i in _wrong(labelled.labels, verdicts)]
            for name, verdicts in result.judged.verdicts.items()
        },
    }


def _disagreement(result: Checked, name: str, i: int) -> dict[str, Any]:
    verdict = result.judged.verdicts[name][i]
    answer = result.labelled.answers[i]
    return {"row": answer.id, "label": result.labelled.labels[i], **asdict(verdict), "response": answer.response}


def _wrong(labels: Sequence[bool], verdicts: Sequence[Verdict]) -> list[int]:
    return [i for i, (label, verdict) in enumerate(zip(labels, verdicts, strict=True)) if verdict.positive is not label]


def _agreement_content(judged: Judged) -> dict[str, Any]:
    return {"agreement": [asdict(one) for one in judged.agreement]} if judged.agreement else {}


def _verdict_lines(judged: Judged) -> list[dict[str, Any]]:
    return [
        {
            "id": answer.id,
            "request": answer.request,
            "response": answer.response,
            "verdicts": {name: asdict(verdicts[i]) for name, verdicts in judged.verdicts.items()},
        }
        for i, answer in enumerate(judged.answers)
    ]


def _json(line: Mapping[str, Any]) -> str:
    import json

    return json.dumps(line, ensure_ascii=False)


def _show_agreement(judged: Judged) -> None:
    if judged.agreement:
        print_lines("")
        rows = [[one.first, one.second, str(one.kappa), f"{one.agree:.3f}"] for one in judged.agreement]
        print_table(["judge", "and", "κ", "agree"], rows, "agreement of the judges")


def _show_disagreements(result: Checked, show: int) -> None:
    labelled = result.labelled
    for name, verdicts in result.judged.verdicts.items():
        wrong = _wrong(labelled.labels, verdicts)
        if not wrong or not show:
            continue
        rows = [
            [
                labelled.answers[i].id,
                _WORDS[labelled.labels[i]],
                _WORDS[verdicts[i].positive],
                _short(verdicts[i].raw, 32),
                _excerpt(labelled.answers[i]),
            ]
            for i in wrong[:show]
        ]
        print_lines("")
        print_table([f"{name}: row", "label", "judged", "because", "response"], rows, "response")
        if len(wrong) > show:
            print_lines(f"… and {len(wrong) - show} more: --show {len(wrong)}")


def _show_limits(judged: Judged, out: Path | None) -> None:
    print_lines("")
    print_lines(*(f"{name}: {limits}" for name, limits in judged.limits.items() if limits))
    if out is not None:
        print_lines("", str(out))


def _excerpt(answer: Answered) -> str:
    return _short(answer.response, _EXCERPT)


def _short(text: str, room: int) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= room else f"{line[: room - 1]}…"
