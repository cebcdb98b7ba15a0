"""Files of responses: with human labels, to measure a judge against, or without, to judge."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.base.suggest import suggest
from alignzoo.contract.judge import Answered
from alignzoo.errors import DataError

REQUEST = ("request", "prompt", "objective", "instruction", "question", "behavior", "query", "user", "input")
RESPONSE = ("response", "assistant_response", "answer", "completion", "generation", "model_response", "output")
LABEL = ("label", "human_score", "human_label", "human", "gold", "annotation", "is_refusal", "refusal", "harmful")
"""Column names by what they hold, the most usual first."""
_YES, _NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})


@dataclass(frozen=True)
class Columns:
    """The columns to read; None leaves it to their names."""

    request: str | None = None
    response: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Responses with their human labels.

    Attributes:
        labels: whether each is positive.
        columns: the columns that were read, by what they hold.
        positive: the values of the label column that are positive.
    """

    answers: list[Answered]
    labels: list[bool]
    columns: dict[str, str]
    positive: list[str]


def read_labels(path: Path, columns: Columns, positive: Sequence[str] = (), limit: int | None = None) -> Labelled:
    """The labelled responses of a ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Args:
        positive: the values of the label column that are positive; by default 1, true and yes.
        limit: read the first so many.

    Raises:
        DataError: it cannot be read, a column is missing, or the values of the labels need naming.
    """
    rows = _rows(path)[:limit]
    names = {
        "response": _column(path, rows, "response", columns.response, RESPONSE),
        "label": _column(path, rows, "label", columns.label, LABEL),
    }
    request = _optional(path, rows, columns.request)
    names |= {"request": request} if request else {}
    values = [str(row.get(names["label"], "")).strip() for row in rows]
    wanted = _positive(path, names["label"], values, positive)
    answers = [
        Answered(str(i), _text(row, request), (), _text(row, names["response"])) for i, row in enumerate(rows, start=1)
    ]
    return Labelled(
        answers, [value.casefold() in wanted for value in values], names, sorted(wanted & set(_low(values)))
    )


def read_answers(path: Path, columns: Columns) -> list[Answered]:
    """The responses of a file: of an evaluation, or any with a request or prompt (text or messages) and a response.

    Raises:
        DataError: it cannot be read, or has no responses.
    """
    rows = _rows(path)
    response = _column(path, rows, "response", columns.response, RESPONSE)
    request = _optional(path, rows, columns.request)
    return [_answer(row, i, request, response) for i, row in enumerate(rows, start=1)]


def _answer(row: Mapping[str, Any], number: int, request: str | None, response: str) -> Answered:
    given = row.get(request) if request else None
    messages = row.get("messages") if isinstance(row.get("messages"), list) else given
    turns = tuple(messages) if isinstance(messages, list) else ()
    asked = [str(turn.get("content", "")) for turn in turns if isinstance(turn, Mapping) and turn.get("role") == "user"]
    text = str(given or "") if not isinstance(given, list) else (asked[-1] if asked else "")
    more = {name: str(row[name]) for name in ("category", "context", "reference") if row.get(name) is not None}
    facts = row.get("facts") if isinstance(row.get("facts"), dict) else {}
    return Answered(str(row.get("id", number)), text, turns, _text(row, response), facts=facts or {}, **more)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; lines at its top that begin with ``#`` are comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="give a .csv, .tsv or .jsonl file") from error
    kind = path.suffix.casefold()
    if kind in (".jsonl", ".json"):
        rows = list(_lines(path, text))
    elif kind in (".csv", ".tsv"):
        lines = text.splitlines(keepends=True)
        start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        table = csv.DictReader(
            io.StringIO("".join(lines[start:]), newline=""), delimiter="\t" if kind == ".tsv" else ","
        )
        rows = [{name: value for name, value in row.items() if name is not None} for row in table]
    else:
        raise DataError(f"{path} is not a .csv, .tsv or .jsonl file", hint="save it as one of them")
    if not rows:
        raise DataError(f"{path} has no rows", hint="it needs a response in each")
    return rows


def _lines(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}", hint="each line is a JSON object") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object", hint='{"request": …, "response": …}')
        yield row


def _column(path: Path, rows: Sequence[Mapping[str, Any]], what: str, named: str | None, usual: Sequence[str]) -> str:
    """The column that holds something.

    Raises:
        DataError: there is none of that name, or of no usual one.
    """
    there = list(dict.fromkeys(str(name) for row in rows for name in row))
    if named is not None:
        if named in there:
            return named
        raise DataError(
            f"{path} has no column {named!r}", hint=suggest(named, there) or f"its columns: {', '.join(there)}"
        )
    low = {name.casefold(): name for name in there}
    found = next((low[name] for name in usual if name in low), None)
    if found is None:
        raise DataError(
            f"{path}: which column is the {what}?", hint=f"name it: --{what} COLUMN; its columns: {', '.join(there)}"
        )
    return found


def _optional(path: Path, rows: Sequence[Mapping[str, Any]], named: str | None) -> str | None:
    """The column of the requests: judges of the wording alone need none."""
    low = {str(name).casefold(): str(name) for row in rows for name in row}
    if named is None:
        return next((low[name] for name in REQUEST if name in low), None)
    return _column(path, rows, "request", named, REQUEST)


def _positive(path: Path, column: str, values: Sequence[str], named: Sequence[str]) -> frozenset[str]:
    """The label values that are positive, in lower case.

    Raises:
        DataError: a named value does not occur, or none was named and the values do not say it themselves.
    """
    low = _low(values)
    seen = ", ".join(dict.fromkeys(values)) if len(set(values)) <= 12 else f"{len(set(values))} different ones"
    if named:
        missing = [value for value in named if value.casefold() not in low]
        if missing:
            raise DataError(
                f"{path}: no label in column {column!r} is {missing[0]!r}",
                hint=suggest(missing[0], set(values)) or f"its values: {seen}",
            )
        return frozenset(_low(named))
    if not set(low) <= _YES | _NO:
        raise DataError(
            f"{path}: which values of column {column!r} are positive?",
            hint=f"name them: --positive VALUE (repeatable); its values: {seen}",
        )
    return _YES


def _low(values: Sequence[str]) -> list[str]:
    return [value.casefold() for value in values]


def _text(row: Mapping[str, Any], column: str | None) -> str:
    value = row.get(column) if column else None
    return "" if value is None else str(value)
