"""The prompts of a file: plain text, or rows with a prompt or with messages."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import local_path
from alignzoo.contract.card import DataExtension
from alignzoo.data import fields
from alignzoo.data.fields import Row
from alignzoo.data.formats import Layout, choose_layout
from alignzoo.data.named import named_rows
from alignzoo.data.rows import Drop, FieldError, canonical, is_blank
from alignzoo.data.sources import is_path, load_rows, locate
from alignzoo.errors import DataError
from alignzoo.plugin.registry import registry

if TYPE_CHECKING:
    from datasets import Dataset

STDIN = "-"
COLUMNS = ("messages", "prompt")
"""Columns of prompts, in the order in which they are looked for."""


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: that of the row's ``id`` column, else the row's number, from 0.
        given: a plain text, or chat messages.
        place: where it is, for messages: ``file:line``.
    """

    id: str | int
    given: str | list[dict[str, Any]]
    place: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt as chat messages; a plain text is the user's, character by character."""
        return [{"role": "user", "content": self.given}] if isinstance(self.given, str) else self.given

    @property
    def column(self) -> str:
        """The name of its field in the responses file."""
        return "prompt" if isinstance(self.given, str) else "messages"

    @property
    def answered(self) -> bool:
        """Whether it ends with the reply that a model is to give."""
        return not isinstance(self.given, str) and self.given[-1]["role"] == "assistant"


def read_prompts(source: str, *, column: str | None, split: str | None, limit: int | None) -> list[Prompt]:
    """The prompts of a source.

    Args:
        source: ``-`` (lines of stdin), a ``.txt`` file (one prompt per line), or what ``--data`` can read.
        column: the column of the prompts, instead of those of :data:`COLUMNS` or the data's preference layout.
        split: of a hub dataset.
        limit: only the first prompts.

    Raises:
        DataError: not found, malformed (names file and line), an empty prompt, or none at all.
    """
    if source == STDIN or source.lower().endswith(".txt"):
        prompts = _lines(source)[:limit]
    else:
        prompts = _rows(source, column, split, limit)
    if not prompts:
        where = "stdin" if source == STDIN else source
        raise DataError(f"{where}: contains no prompts", hint="write one prompt per line")
    return [_open_ended(prompt) for prompt in prompts]


def _open_ended(prompt: Prompt) -> Prompt:
    """Without the replies at the end of a conversation: the model is to give its own."""
    while prompt.answered:
        prompt = replace(prompt, given=prompt.given[:-1])
        if not prompt.given:
            raise DataError(f"{prompt.place}: the conversation has no message to respond to", hint="add the user's")
    if is_blank(prompt.given):
        raise DataError(f"{prompt.place}: the prompt is empty", hint="remove it")
    return prompt


def _lines(source: str) -> list[Prompt]:
    """The lines of a text that are not blank."""
    name = "stdin" if source == STDIN else source
    try:
        raw = sys.stdin.buffer.read() if source == STDIN else local_path(source).read_bytes()
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: not UTF-8 text (byte {error.object[error.start]:#04x})") from error
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}", hint="use a file that exists and is readable") from error
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1)]
    filled = [(number, line) for number, line in lines if line.strip()]
    return [Prompt(index, line, f"{name}:{number}") for index, (number, line) in enumerate(filled)]


def _rows(source: str, column: str | None, split: str | None, limit: int | None) -> list[Prompt]:
    card = registry().named_extension("data", source)
    rows = named_rows(card, "train") if isinstance(card, DataExtension) else load_rows(source, split=split)
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    names = [column] if column is not None else [name for name in COLUMNS if name in rows.column_names][:1]
    if column is not None and column not in rows.column_names:
        raise DataError(f"{source}: no column {column!r}", hint=f"its columns: {', '.join(rows.column_names)}")
    layout = None if names else _layout(rows, source)
    found = []
    for index, row in enumerate(rows):
        place = locate(source, [index])[0] if card is None and is_path(source) else f"{source}, row {index}"
        try:
            given = _prompt_of(row, layout) if layout is not None else _field(row, names[0])
        except FieldError as error:
            raise DataError(f"{place}: field {error.field!r} {error.problem}") from error
        if given is not None:
            named = row.get("id")
            found.append(Prompt(named if isinstance(named, (str, int)) else index, given, place))
    return found


def _layout(rows: Dataset, source: str) -> Layout:
    """The preference layout of rows without a column of prompts.

    Raises:
        DataError: they have none either.
    """
    try:
        return choose_layout(rows)
    except DataError as error:
        raise DataError(
            f"{source}: no column {' or '.join(COLUMNS)}, and no known preference layout",
            hint=f"name the column of the prompts with --column; its columns: {', '.join(rows.column_names)}",
        ) from error


def _prompt_of(row: Row, layout: Layout) -> str | list[dict[str, Any]] | None:
    """The prompt of a row of preference data; None for a row that has none."""
    made = layout.normalise(row)
    return None if isinstance(made, Drop) else canonical(made).prompt


def _field(row: Row, name: str) -> str | list[dict[str, Any]]:
    if isinstance(fields.required(row, name), list):
        given: str | list[dict[str, Any]] = [dict(message) for message in fields.messages(row, name)]
    else:
        given = fields.text(row, name)
    if not given:
        raise FieldError(name, "is empty")
    return given
