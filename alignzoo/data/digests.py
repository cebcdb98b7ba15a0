"""Content hashes of rows and tokenizers: exactly what a tokenised dataset depends on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_ROWS_PER_BLOCK = 1000


def digest(*parts: Any) -> str:
    """The sha256 of JSON-able values, in order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def rows_digest(rows: Dataset) -> str:
    """A hash of the rows' content, independent of where they were loaded from and how they are split into blocks."""
    return tables_digest(rows.with_format("arrow").iter(batch_size=_ROWS_PER_BLOCK))


def tables_digest(tables: Iterable[Any]) -> str:
    """``rows_digest`` of rows as pyarrow tables, one at a time."""
    import pyarrow as pa  # type: ignore[import-untyped]

    content = hashlib.sha256()
    for table in _blocks_of(_ROWS_PER_BLOCK, tables):
        buffer = io.BytesIO()
        # Taken, not sliced: a stream pads a slice with the data that follows it in its table.
        plain = table.take(pa.array(range(table.num_rows))).combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(buffer, plain.schema) as writer:
            writer.write_table(plain)
        content.update(buffer.getbuffer())
    return content.hexdigest()


def _blocks_of(size: int, tables: Iterable[Any]) -> Iterator[Any]:
    """The same rows in tables of ``size`` rows, the last one smaller."""
    import pyarrow as pa

    waiting: list[Any] = []
    for table in tables:
        start = 0
        while start < table.num_rows:
            part = table.slice(start, size - sum(piece.num_rows for piece in waiting))
            start += part.num_rows
            waiting.append(part)
            if sum(piece.num_rows for piece in waiting) == size:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything in a tokenizer that affects ids: vocabulary, rules, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab().items())
    if isinstance(rules, dict):
        # State left by earlier calls; each of our calls sets both.
        rules = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest(type(tokenizer).__name__, rules, specials, tokenizer.chat_template, list(tokenizer("a")["input_ids"]))
