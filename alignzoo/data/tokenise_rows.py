"""The pass over all rows: processes a block of rows in a worker."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from alignzoo.data.extras import extra_types
from alignzoo.data.formats import Layout
from alignzoo.data.malformed import malformed
from alignzoo.data.rows import (
    ROW_TYPES,
    Drop,
    FieldError,
    PromptRow,
    RankedRow,
    SourceRow,
    UnpairedRow,
    canonical,
    prompt_key,
)
from alignzoo.data.sources import locate
from alignzoo.data.tokens import RowTokenizer, TokenizedRow
from alignzoo.errors import DataError, contained
from alignzoo.plugin.faults import describe_error

if TYPE_CHECKING:
    from datasets import Features
    from transformers import PreTrainedTokenizerBase

COUNTED = ("boundary_moved", "truncated", "prompt_restored")
"""Columns that count events of kept rows."""
BOOKKEEPING = ("reason", *COUNTED, "tokens", "content")
"""Columns for bookkeeping only; ``tokens`` and ``content`` are 32-byte hashes."""
_NOT_CONTENT = ("row_id", "prompt_ids", "response_ids", *BOOKKEEPING)


def columns_of(layout: Layout, source_columns: list[str]) -> Features:
    """The output columns of ``TokeniseRows``: the row's, then bookkeeping."""
    from datasets import Features, List, Value

    optional = extra_types(source_columns, layout.shape, layout.safety_columns, layout.gives)
    types: dict[str, Any] = {
        "row_id": Value("int64"),
        "prompt_ids": List(Value("int32")),
        "response_ids": List(List(Value("int32"))),
        "prompt_key": Value("string"),
        "prompt_text": Value("string"),
        "response_text": List(Value("string")),
        **({"label": Value("int8")} if layout.shape == "unpaired" else {}),
        **{name: Value(kind) if name == "group" else List(Value(kind)) for name, kind in optional.items()},
        "reason": Value("string"),
        **{name: Value("bool") for name in COUNTED},
        "tokens": Value("binary"),
        "content": Value("binary"),
    }
    return Features(types)


@dataclass(frozen=True)
class TokeniseRows:
    """Called by ``Dataset.map`` on blocks of source rows; a dropped row stays, with its reason and empty columns."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    max_prompt_length: int
    source: str | None

    def __call__(self, block: dict[str, list[Any]], indices: list[int]) -> Any:
        import pyarrow as pa  # type: ignore[import-untyped]

        rows = [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]
        normal = [self._normalise(row, index) for row, index in zip(rows, indices, strict=True)]
        usable = [row for row in normal if isinstance(row, PromptRow)]
        tokenised = iter(self._row_tokenizer.tokenize(usable, self.max_length, self.max_prompt_length))
        columns = columns_of(self.layout, list(block))
        content = [name for name in columns if name not in _NOT_CONTENT]
        records = []
        for index, row in zip(indices, normal, strict=True):
            record: dict[str, Any] = {"row_id": index, "prompt_ids": [], "response_ids": []}
            outcome = row if isinstance(row, Drop) else next(tokenised)
            if isinstance(row, Drop) or isinstance(outcome, Drop):
                record["reason"] = outcome.reason if isinstance(outcome, Drop) else ""
            else:
                record |= _record(row, outcome, content)
            records.append(record)
        # As an Arrow table: ``map`` would infer the types of lists of Python numbers again.
        schema = columns.arrow_schema
        return pa.table([_array([r.get(field.name) for r in records], field.type) for field in schema], schema=schema)

    @cached_property
    def _row_tokenizer(self) -> RowTokenizer:
        return RowTokenizer(self.tokenizer)

    def _normalise(self, row: dict[str, Any], index: int) -> PromptRow | Drop:
        layout = self.layout
        hint = f"layout {layout.name}: {layout.columns}"
        try:
            with contained():
                normal = layout.normalise(row)
        except FieldError as error:
            return malformed(error)
        except Exception as error:
            if not layout.version:
                raise
            (place,) = locate(self.source, [index])  # third-party code can raise anything
            raise DataError(
                f"{place}: layout {layout.name} of {layout.version} failed: {describe_error(error)}", hint=hint
            ) from error
        fault = _fault(normal, ROW_TYPES[layout.shape]) if layout.version else None
        if fault is not None:
            (place,) = locate(self.source, [index])
            raise DataError(f"{place}: layout {layout.name} of {layout.version} returned {fault}", hint=hint)
        return normal if isinstance(normal, Drop) else canonical(normal)


def _fault(normal: Any, expected: type[SourceRow]) -> str | None:
    """What is wrong with a row returned by a plugin's layout, or None."""
    if isinstance(normal, Drop):
        good = isinstance(normal.reason, str) and normal.reason.strip()
        return None if good else f"the reason {normal.reason!r} for dropping a row, expected a word"
    if not isinstance(normal, expected):
        return f"a {type(normal).__name__} for a row, expected {expected.__name__} or Drop"
    for side in ("prompt", "chosen", "rejected", "completion"):
        if not _is_text(text := getattr(normal, side, "")):
            return f"{side} as {type(text).__name__}, expected text or a list of messages"
    if isinstance(normal, UnpairedRow) and not isinstance(normal.label, bool):
        return f"label as {type(normal.label).__name__}, expected True or False"
    return _fault_of_list(normal) if isinstance(normal, RankedRow) else None


def _fault_of_list(row: RankedRow) -> str | None:
    if not isinstance(row.responses, Sequence) or isinstance(row.responses, str) or len(row.responses) < 2:
        return "responses that are not a list of two or more"
    if not all(map(_is_text, row.responses)):
        return "responses that are not all text or lists of messages"
    for name in ("safe", "scores"):
        values = getattr(row, name)
        if values is not None and len(values) != len(row.responses):
            return f"{len(values)} {name} for {len(row.responses)} responses"
    return None


def _is_text(text: Any) -> bool:
    return isinstance(text, str) or _is_conversation(text)


def _is_conversation(text: Any) -> bool:
    return isinstance(text, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in text
    )


def _array(values: list[Any], kind: Any) -> Any:
    """The values as a typed column; a number from a plugin's layout in place of a name is converted."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values).cast(kind)


def _record(row: PromptRow, tokens: TokenizedRow, content: Sequence[str]) -> dict[str, Any]:
    """A kept row's columns; ``content`` names those that its content hash covers besides the ids."""
    sequences = (tokens.prompt_ids, *tokens.response_ids)
    digest = sha256(b"".join(len(ids).to_bytes(4, "little") + array("i", ids).tobytes() for ids in sequences))
    record = {
        "prompt_ids": tokens.prompt_ids,
        "response_ids": tokens.response_ids,
        "prompt_key": prompt_key(row.prompt),
        "prompt_text": tokens.prompt_text,
        "response_text": tokens.response_text,
        "label": row.label,
        "safe": row.safe,
        "score": row.score,
        "group": row.group,
        "reason": "",
        **{name: getattr(tokens, name) for name in COUNTED},
        "tokens": digest.digest(),
    }
    digest.update(json.dumps({name: record[name] for name in content}, default=str).encode())
    return {**record, "content": digest.digest()}
