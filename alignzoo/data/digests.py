"""Content hashes of rows and tokenizers: what a tokenised dataset depends on, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_ROWS_PER_BLOCK = 1000


def digest(*parts: Any) -> str:
    """A sha256 of JSON-able values, in order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def rows_digest(rows: Dataset) -> str:
    """A hash of the rows' content, the same wherever they were loaded from and in whatever blocks they are stored."""
    import pyarrow as pa  # type: ignore[import-untyped]

    content = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=_ROWS_PER_BLOCK):
        buffer = io.BytesIO()
        plain = table.combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(buffer, plain.schema) as writer:
            writer.write_table(plain)
        content.update(buffer.getbuffer())
    return content.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything in a tokenizer that decides ids: vocabulary, rules, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab().items())
    if isinstance(rules, dict):
        # Left behind by earlier calls; every call of ours sets both anew.
        rules = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest(type(tokenizer).__name__, rules, specials, tokenizer.chat_template, list(tokenizer("a")["input_ids"]))
