"""The pass over all rows: what a worker makes of a block of them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from alignzoo.data.extras import extra_types
from alignzoo.data.formats import Layout
from alignzoo.data.malformed import malformed
from alignzoo.data.rows import Drop, FieldError, PreferenceRow, prompt_key
from alignzoo.data.sources import locate
from alignzoo.data.tokens import PairTokenizer, TokenizedPair
from alignzoo.errors import DataError, contained
from alignzoo.plugin.faults import describe_error

if TYPE_CHECKING:
    from datasets import Features
    from transformers import PreTrainedTokenizerBase

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
_TEXTS = ("prompt_text", "chosen_text", "rejected_text")
COUNTED = ("boundary_moved", "truncated", "prompt_restored")
"""Columns that say what became of a kept pair."""
BOOKKEEPING = ("reason", *COUNTED, "tokens", "content")
"""Columns that only the account of the pass needs; ``tokens`` and ``content`` are hashes of 32 bytes."""
_NOT_CONTENT = ("pair_id", *_IDS, *BOOKKEEPING)


def columns_of(layout: Layout, source_columns: list[str]) -> Features:
    """The columns that ``TokeniseRows`` writes: the pair's, then the bookkeeping's."""
    from datasets import Features, List, Value

    types: dict[str, Any] = {"pair_id": Value("int64"), **{name: List(Value("int32")) for name in _IDS}}
    types |= {name: Value("string") for name in ("prompt_key", *_TEXTS)}
    types |= {
        name: Value(kind) for name, kind in extra_types(source_columns, layout.safety_columns, layout.gives).items()
    }
    types |= {"reason": Value("string"), **{name: Value("bool") for name in COUNTED}}
    return Features({**types, "tokens": Value("binary"), "content": Value("binary")})


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
        usable = [row for row in normal if isinstance(row, PreferenceRow)]
        pairs = iter(PairTokenizer(self.tokenizer).tokenize(usable, self.max_length, self.max_prompt_length))
        columns = columns_of(self.layout, list(block))
        content = [name for name in columns if name not in _NOT_CONTENT]
        records = []
        for index, row in zip(indices, normal, strict=True):
            record: dict[str, Any] = {"pair_id": index, **{name: [] for name in _IDS}}
            outcome: TokenizedPair | Drop = row if isinstance(row, Drop) else next(pairs)
            if isinstance(row, Drop) or isinstance(outcome, Drop):
                record["reason"] = outcome.reason if isinstance(outcome, Drop) else ""
            else:
                record |= _record(row, outcome, content)
            records.append(record)
        # As an Arrow table: ``map`` would infer the types of lists of Python numbers anew.
        schema = columns.arrow_schema
        return pa.table([_array([r.get(field.name) for r in records], field.type) for field in schema], schema=schema)

    def _normalise(self, row: dict[str, Any], index: int) -> PreferenceRow | Drop:
        layout = self.layout
        hint = f"Layout {layout.name}: {layout.columns}"
        try:
            with contained():
                normal = layout.normalise(row)
        except FieldError as error:
            return malformed(error)
        except Exception as error:
            if not layout.version:
                raise
            (place,) = locate(self.source, [index])  # a plugin's code: anything can come out of it
            raise DataError(
                f"{place}: layout {layout.name} of {layout.version} failed: {describe_error(error)}", hint=hint
            ) from error
        fault = _fault(normal) if layout.version else None
        if fault is not None:
            (place,) = locate(self.source, [index])
            raise DataError(f"{place}: layout {layout.name} of {layout.version} gave {fault}", hint=hint)
        return normal


def _fault(normal: Any) -> str | None:
    """What is wrong with a row that a plugin's layout gave."""
    if isinstance(normal, Drop):
        good = isinstance(normal.reason, str) and normal.reason.strip()
        return None if good else f"the reason {normal.reason!r} for dropping a row, expected a word"
    if not isinstance(normal, PreferenceRow):
        return f"a {type(normal).__name__} for a row, expected PreferenceRow or Drop"
    for side in ("prompt", "chosen", "rejected"):
        text = getattr(normal, side)
        if not isinstance(text, str) and not _is_conversation(text):
            return f"{side} as {type(text).__name__}, expected text or a list of messages"
    return None


def _is_conversation(text: Any) -> bool:
    return isinstance(text, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in text
    )


def _array(values: list[Any], kind: Any) -> Any:
    """The values as a column of a type; what a plugin's layout gives as a number where a name belongs is converted."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values).cast(kind)


def _record(row: PreferenceRow, pair: TokenizedPair, content: Sequence[str]) -> dict[str, Any]:
    """A kept row's columns; ``content`` names those that its content hash covers beside the ids."""
    ids = {name: getattr(pair, name) for name in _IDS}
    tokens = sha256(b"".join(len(side).to_bytes(4, "little") + array("i", side).tobytes() for side in ids.values()))
    record = {
        **vars(row),
        **{name: getattr(pair, name) for name in _TEXTS},
        **ids,
        "prompt_key": prompt_key(row.prompt),
        "reason": "",
        **{name: getattr(pair, name) for name in COUNTED},
        "tokens": tokens.digest(),
    }
    tokens.update(json.dumps({name: record[name] for name in content}, default=str).encode())
    return {**record, "content": tokens.digest()}
