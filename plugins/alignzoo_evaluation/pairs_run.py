"""Reading two models' responses, comparing them and counting wins."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.disk import stating
from alignzoo.base.files import local_path, write_json
from alignzoo.base.stored import sealed
from alignzoo.base.suggest import suggest
from alignzoo.contract.judge import Answered, JudgeContext
from alignzoo.errors import DataError, UsageError
from alignzoo.evaluate.responses import RESPONSES, responses_in, responses_of
from alignzoo.evaluate.verdicts.judging import ready_judge
from alignzoo.evaluate.verdicts.preferences import PREFERENCES, Matched, compared, matched, with_references
from alignzoo.evaluate.verdicts.win_rate import by_category, win_rate
from alignzoo.plan.plan import Method
from alignzoo.report import Reporter

_OF_A_RUN = "evaluation"  # where `alignzoo eval RUN` writes by default
RESULT = "pairs.json"


@dataclass(frozen=True)
class Asked:
    """What to compare.

    Attributes:
        a, b: folders of evaluations or files of responses, as typed; b is None for A's own reference answers.
        suite: the only one to compare on.
        seed: of the bootstrap.
    """

    a: str
    b: str | None
    suite: str | None = None
    batch_size: int | None = None
    trust_remote_code: bool = False
    seed: int = 0


def home_of(name: str) -> Path:
    """The folder that verdicts on A's responses are kept in, unless another is named."""
    path = local_path(name)
    return path.parent if path.is_file() else _evaluation(path)


def compared_pairs(method: Method, asked: Asked, out: Path, report: Reporter) -> dict[str, Any]:
    """The win rates of A over B on each suite, JSON-able; they are also written to ``OUT/preferences/pairs.json``.

    Raises:
        UsageError: a file or folder has no such responses.
        DataError: a file cannot be read, or the prompts are different ones.
        AlignzooError: the judge fails; what it had judged is kept.
    """
    from alignzoo.distributed.process import alone

    suites = _matched(asked)
    device = alone("alignzoo judge pairs").device
    results = []
    with ready_judge(method, JudgeContext(device, report, asked.batch_size, asked.trust_remote_code)) as ready:
        for suite, found in suites.items():
            kept = out / PREFERENCES / suite / f"{ready.name}.jsonl"
            verdicts = compared(ready, found.pairs, kept, report)
            categories = by_category(verdicts, seed=asked.seed)
            results.append(
                {
                    "suite": suite,
                    "only_a": found.only_a,
                    "only_b": found.only_b,
                    "equal": sum(a.response == b.response for a, b in found.pairs),
                    "overall": asdict(win_rate(verdicts, seed=asked.seed)),
                    "categories": {name: asdict(figures) for name, figures in categories.items()},
                }
            )
        result = {
            "a": asked.a,
            "b": "references" if asked.b is None else asked.b,
            "judge": method.card.name,
            "options": ready.about["options"],
            "limits": getattr(method.card, "limits", ""),
            "suites": results,
        }
    target = out / PREFERENCES / RESULT
    with stating(target, "choose another folder with --out"):
        write_json(target, sealed(result))
    return result


def _matched(asked: Asked) -> dict[str, Matched]:
    """The pairs of each suite.

    Raises:
        UsageError: no suite is in both.
    """
    a = _responses(asked.a, asked.suite)
    if asked.b is None:
        return {suite: with_references(answers) for suite, answers in a.items()}
    b = _responses(asked.b, asked.suite)
    if any(local_path(name).is_file() for name in (asked.a, asked.b)):  # a file's name says nothing
        for name, found in ((asked.a, a), (asked.b, b)):
            if len(found) > 1:
                raise UsageError(
                    f"{name} has responses to several suites: {', '.join(found)}", hint="choose one with --suite"
                )
        [[suite, ours]], [theirs] = a.items(), b.values()
        return {suite: matched(ours, theirs)}
    both = [suite for suite in a if suite in b]
    if not both:
        raise UsageError(
            f"no suite has responses of both: A has {', '.join(a)}, B has {', '.join(b)}",
            hint="evaluate both models on the same suite",
        )
    return {suite: matched(a[suite], b[suite]) for suite in both}


def _responses(name: str, suite: str | None) -> dict[str, list[Answered]]:
    """The responses in a folder or file, by suite.

    Raises:
        UsageError: there are none.
    """
    path = local_path(name)
    if path.is_file():
        return {path.stem: read_file(path)}
    folder = _evaluation(path)
    known = responses_in(folder)
    if not known:
        raise UsageError(
            f"{name} is neither a file of responses nor the folder of an evaluation",
            hint=f"generate responses: alignzoo eval MODEL --suite NAME --out {name}",
        )
    if suite is not None and suite not in known:
        raise UsageError(
            f"{name} has no responses to suite {suite!r}", hint=suggest(suite, known) or f"it has: {', '.join(known)}"
        )
    return {one: responses_of(folder, one) for one in ([suite] if suite else known)}


def _evaluation(folder: Path) -> Path:
    """The evaluation of a run, or the folder itself."""
    of_run = folder / _OF_A_RUN
    return of_run if not (folder / RESPONSES).is_dir() and (of_run / RESPONSES).is_dir() else folder


def read_file(path: Path) -> list[Answered]:
    """The responses of a ``.jsonl`` file: ``request`` (or ``prompt``) and ``response``; possibly ``id``, ``messages``,
    ``category`` and ``reference``.

    Raises:
        DataError: the file cannot be read, or a line lacks one of them.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = [_answered(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{path} has no responses")
    return found


def _answered(line: str, where: str) -> Answered:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {error}", hint="one JSON object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    request = row.get("request", row.get("prompt"))
    messages = row.get("messages") or []
    if isinstance(request, list):  # chat messages: the last one is the request
        messages, request = request, request[-1].get("content") if request and isinstance(request[-1], dict) else None
    response = row.get("response")
    for name, value in (("request", request), ("response", response)):
        if not isinstance(value, str):
            raise DataError(
                f"{where}: no text under {name!r}", hint='each line needs "request" (or "prompt") and "response"'
            )
    if not _are_messages(messages):
        raise DataError(f"{where}: the messages are not a list of roles and contents")
    texts = {
        name: str(row[name]) if row.get(name) is not None else None for name in ("category", "context", "reference")
    }
    identifier = "" if row.get("id") is None else str(row["id"])
    return Answered(
        identifier,
        str(request),
        tuple(messages),
        str(response),
        category=texts["category"],
        context=texts["context"],
        reference=texts["reference"],
    )


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in value
    )
