"""General texts as token ids, where a method needs plain texts and not preferences.

A row is a plain text (``text``), a conversation (``messages``), or a ``prompt`` with its ``response``. Conversations
are rendered like preference data; plain text is tokenised unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.base.files import local_path
from alignzoo.data import fields
from alignzoo.data.columns import column
from alignzoo.data.fields import Row
from alignzoo.data.rendering import render_whole
from alignzoo.data.rows import FieldError, PromptRow
from alignzoo.data.sources import is_path, load_rows, locate
from alignzoo.data.tokens import RowTokenizer
from alignzoo.errors import DataError
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_KINDS = "text; messages (chat messages); or prompt and response"


def load_texts(
    source: str, count: int, *, tokenizer: PreTrainedTokenizerBase, seed: int, report: Reporter
) -> list[list[int]]:
    """Token ids of ``count`` texts of a source, drawn with ``seed``; of all of them if there are fewer.

    Args:
        source: a ``.txt`` file with one text per line, or a source for :func:`~alignzoo.data.sources.load_rows`.

    Raises:
        DataError: not found, malformed (names file, line and field), or without texts.
        ModelError: chat messages, but the tokenizer has no chat template.
    """
    rows: Sequence[Row] | Dataset = _lines(source) if source.lower().endswith(".txt") else load_rows(source)
    rendered = [_render(rows[i], source, i, tokenizer) for i in drawn(len(rows), count, seed)]
    written = [text for text in rendered if text.strip()]
    texts = [ids for ids in RowTokenizer(tokenizer).encode(written) if ids] if written else []
    if not texts:
        raise DataError(f"{source}: contains no texts", hint=f"a row has {_KINDS}")
    if len(texts) < count:
        report.note(f"{source}: only {len(texts)} of the {count} requested texts")
    return texts


def training_texts(dataset: Dataset, count: int, *, seed: int, report: Reporter) -> list[list[int]]:
    """Token ids of prompt and best response of ``count`` prepared rows, drawn with ``seed``; of all if there are fewer.

    Unpaired rows are used only if their response is desirable.
    """
    rows: Sequence[int] = range(len(dataset))
    if "label" in dataset.column_names:
        rows = np.flatnonzero(column(dataset, "label").to_numpy() > 0).tolist()
    if len(rows) < count:
        report.note(f"only {len(rows)} training rows for the {count} requested texts")
    taken = dataset.select([rows[i] for i in drawn(len(rows), count, seed)])
    return [
        [*row["prompt_ids"], *row["response_ids"][0]] for row in taken.select_columns(["prompt_ids", "response_ids"])
    ]


def drawn(size: int, count: int, seed: int) -> list[int]:
    """``count`` of ``size`` row numbers, in order; all of them if there are no more."""
    if count >= size:
        return list(range(size))
    return sorted(random.Random(f"texts {seed}").sample(range(size), count))


def _lines(source: str) -> list[Row]:
    """The non-blank lines of a text file."""
    path = local_path(source)
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}:{line}: not UTF-8 text (byte {error.object[error.start]:#04x})") from error
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}", hint="use a file that exists and is readable") from error
    return [{"text": line} for line in lines if line.strip()]


def _render(row: Row, source: str, index: int, tokenizer: PreTrainedTokenizerBase) -> str:
    from jinja2 import TemplateError

    try:
        return _text(row, tokenizer)
    except FieldError as error:
        raise DataError(
            f"{_place(source, index)}: field {error.field!r} {error.problem}", hint=f"a row has {_KINDS}"
        ) from error
    except TemplateError as error:
        raise DataError(
            f"{_place(source, index)}: the chat template rejects the conversation: {error}",
            hint="remove the row, or change its turns",
        ) from error


def _place(source: str, index: int) -> str:
    return locate(source, [index])[0] if is_path(source) else f"{source}, row {index} (counted from 0)"


def _text(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a row as the model reads it."""
    given = {name: value for name, value in row.items() if value is not None}  # Arrow fills in missing fields
    if "text" in given:
        return fields.text(given, "text")
    if "messages" in given:
        turns = fields.messages(given, "messages")
        return _whole(turns[:-1], turns[-1:], tokenizer) if turns else ""
    if "prompt" in given:
        return _whole(fields.text(given, "prompt"), fields.text(given, "response"), tokenizer)
    raise FieldError("text", "is missing")


def _whole(prompt: Any, reply: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    return render_whole(PromptRow("unpaired", prompt, (reply,)), reply, tokenizer)
