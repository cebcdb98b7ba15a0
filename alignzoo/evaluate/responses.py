"""Generated responses as files: ``OUT/responses/SUITE[+JAILBREAK].jsonl``, one line per prompt.

A line has ``id``, ``request``, ``messages``, ``category``, ``context``, ``reference``, ``facts``, ``response``,
``tokens`` and ``ended``. The ``.json`` beside it says which model gave them and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alignzoo.base.suggest import suggest
from alignzoo.contract.judge import Answered
from alignzoo.errors import DamagedError, UsageError
from alignzoo.evaluate.journal import Journal, read_lines

RESPONSES = "responses"
"""The folder of responses inside an evaluation's."""


@dataclass(frozen=True)
class Generated:
    """A response with what is known of its generation.

    Attributes:
        answered: the response and the request that it answers.
        tokens: new tokens, the end token counted.
        ended: whether the model ended it; otherwise it was cut at ``max_new_tokens``.
    """

    answered: Answered
    tokens: int
    ended: bool

    def line(self) -> dict[str, Any]:
        """The line of a responses file."""
        answered = self.answered
        return {
            "id": answered.id,
            "request": answered.request,
            "messages": [dict(message) for message in answered.messages],
            "category": answered.category,
            "context": answered.context,
            "reference": answered.reference,
            "facts": dict(answered.facts),
            "response": answered.response,
            "tokens": self.tokens,
            "ended": self.ended,
        }


@dataclass(frozen=True)
class _Line:
    """A line as it is validated: the fields of :meth:`Generated.line`."""

    id: str
    request: str
    messages: tuple[dict[str, str], ...]
    response: str
    tokens: int
    ended: bool
    category: str | None = None
    context: str | None = None
    reference: str | None = None
    facts: dict[str, Any] | None = None


_LINE = TypeAdapter(_Line)


def generated_of(line: Mapping[str, Any], path: Path) -> Generated:
    """A line of a responses file.

    Raises:
        DamagedError: it lacks a field, or one has the wrong type.
    """
    try:
        found = _LINE.validate_python(dict(line))
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        where = ".".join(map(str, first["loc"]))
        raise DamagedError(path, f"response {line.get('id')!r}: {where}: {first['msg']}") from error
    fields = {name: value for name, value in vars(found).items() if name not in ("tokens", "ended", "facts")}
    return Generated(Answered(**fields, facts=found.facts or {}), found.tokens, found.ended)


def responses_path(folder: Path, suite: str) -> Path:
    """The file of a suite's responses, by ``SUITE`` or ``SUITE+JAILBREAK``."""
    return folder / RESPONSES / f"{suite}.jsonl"


def responses_journal(folder: Path, suite: str, about: Mapping[str, Any], model: str = "") -> Journal:
    """The growing file of a suite's responses.

    Args:
        about: what they depend on: the model, how it is prompted, decoding.
        model: its name, for messages.
    """
    return Journal(responses_path(folder, suite), about, by=model)


def responses_in(folder: Path) -> list[str]:
    """The suites of an evaluation's folder that have responses, as ``SUITE[+JAILBREAK]``, by name."""
    return sorted(path.stem for path in (folder / RESPONSES).glob("*.jsonl"))


def read_responses(path: Path) -> list[Generated]:
    """The responses in a file, in order.

    Raises:
        DamagedError: it cannot be read, or is no file of responses.
    """
    return [generated_of(line, path) for line in read_lines(path)]


def responses_of(folder: Path, suite: str) -> list[Answered]:
    """What a model answered to a suite's prompts: the responses kept in an evaluation's folder.

    Args:
        suite: ``SUITE`` or ``SUITE+JAILBREAK``.

    Raises:
        UsageError: there are none.
        DamagedError: the file cannot be read.
    """
    path = responses_path(folder, suite)
    if not path.is_file():
        known = responses_in(folder)
        raise UsageError(
            f"{folder} has no responses to suite {suite!r}",
            hint=suggest(suite, known)
            or (f"it has: {', '.join(known)}" if known else f"generate them: alignzoo eval MODEL --out {folder}"),
        )
    return [generated.answered for generated in read_responses(path)]


def as_line(answered: Answered) -> dict[str, Any]:
    """Everything in a response that a verdict can depend on, JSON-able."""
    return asdict(answered)
