"""The pass over all rows: what a worker makes of a block of them, and what the outcomes add up to."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.data.digests import digest
from alignzoo.data.extras import extra_types
from alignzoo.data.formats import Layout
from alignzoo.data.rows import Drop, FieldError, PreferenceRow, prompt_key
from alignzoo.data.sources import locate
from alignzoo.data.summary import DataSummary, Dropped, tally
from alignzoo.data.tokens import PairTokenizer, TokenizedPair
from alignzoo.errors import DataError, contained
from alignzoo.plugin.faults import describe_error

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
_TEXTS = ("prompt_text", "chosen_text", "rejected_text")
_BOOKKEEPING = ("reason", "boundary_moved", "truncated", "digest")
_PERCENTILES = (5, 50, 95, 100)


def columns_of(layout: Layout, source_columns: list[str]) -> Features:
    """The columns that ``TokeniseRows`` writes: the pair's, then the bookkeeping's."""
    from datasets import Features, List, Value

    types: dict[str, Any] = {"pair_id": Value("int64"), **{name: List(Value("int32")) for name in _IDS}}
    types |= {name: Value("string") for name in ("prompt_key", *_TEXTS)}
    types |= {
        name: Value(kind) for name, kind in extra_types(source_columns, layout.safety_columns, layout.gives).items()
    }
    types |= {"reason": Value("string"), "boundary_moved": Value("bool"), "truncated": Value("bool")}
    return Features({**types, "digest": Value("string")})


@dataclass(frozen=True)
class TokeniseRows:
    """Called by ``Dataset.map`` on blocks of source rows; a dropped row stays, with its reason and empty columns."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    max_prompt_length: int
    source: str | None

    def __call__(self, block: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        rows = [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]
        normal = [self._normalise(row, index) for row, index in zip(rows, indices, strict=True)]
        usable = [row for row in normal if isinstance(row, PreferenceRow)]
        pairs = iter(PairTokenizer(self.tokenizer).tokenize(usable, self.max_length, self.max_prompt_length))
        records = []
        for index, row in zip(indices, normal, strict=True):
            record: dict[str, Any] = {"pair_id": index, **{name: [] for name in _IDS}}
            outcome: TokenizedPair | Drop = row if isinstance(row, Drop) else next(pairs)
            if isinstance(row, Drop) or isinstance(outcome, Drop):
                record["reason"] = outcome.reason if isinstance(outcome, Drop) else ""
            else:
                record |= _record(row, outcome)
            records.append(record)
        names = columns_of(self.layout, list(block))
        return {name: [record.get(name) for record in records] for name in names}

    def _normalise(self, row: dict[str, Any], index: int) -> PreferenceRow | Drop:
        layout = self.layout
        hint = f"Layout {layout.name}: {layout.columns}"
        try:
            with contained():
                normal = layout.normalise(row)
        except FieldError as error:
            place = locate(self.source, index)
            raise DataError(f"{place}: field {error.field!r} {error.problem}", hint=hint) from error
        except Exception as error:
            if not layout.version:
                raise
            place = locate(self.source, index)  # a plugin's code: anything can come out of it
            raise DataError(
                f"{place}: layout {layout.name} of {layout.version} failed: {describe_error(error)}", hint=hint
            ) from error
        fault = _fault(normal) if layout.version else None
        if fault is not None:
            place = locate(self.source, index)
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


def _record(row: PreferenceRow, pair: TokenizedPair) -> dict[str, Any]:
    ids = {name: getattr(pair, name) for name in _IDS}
    return {
        **vars(row),
        **{name: getattr(pair, name) for name in _TEXTS},
        **ids,
        "prompt_key": prompt_key(row.prompt),
        "reason": "",
        "boundary_moved": pair.boundary_moved,
        "truncated": pair.truncated,
        "digest": digest(*ids.values()),
    }


def summarise(tokenised: Dataset, task: TokeniseRows) -> tuple[Dataset, DataSummary, str]:
    """The usable pairs, the summary (its ``source`` is left to the caller) and the fingerprint.

    Raises:
        DataError: no usable pair is left; the message has the reasons.
    """
    reasons = tokenised["reason"][:]
    dropped = tally(reasons)
    kept = tokenised.select([row for row, reason in enumerate(reasons) if not reason])
    if len(kept) == 0:
        raise DataError(f"{task.source or 'The data'}: no usable pair in {len(reasons)} rows", hint=_reasons(dropped))
    digests = kept["digest"][:]
    content = sha256(
        "".join(f"{pair}:{value}\n" for pair, value in zip(kept["pair_id"][:], digests, strict=True)).encode()
    )
    counted = {
        "boundary-moved": sum(kept["boundary_moved"][:]),
        "response-truncated": sum(kept["truncated"][:]),
        "duplicate": len(digests) - len(set(digests)),
    }
    lengths = {name.removesuffix("_ids"): _percentiles(kept, name) for name in _IDS}
    summary = DataSummary("", None, task.layout.name, len(reasons), len(kept), dropped, counted, lengths)
    return kept.remove_columns(list(_BOOKKEEPING)), summary, content.hexdigest()


def _reasons(dropped: dict[str, Dropped]) -> str:
    lines = [f"    {entry.count:>7}  {reason}" for reason, entry in dropped.items()]
    return "\n".join(["Rows dropped, by reason:", *lines])


def _percentiles(pairs: Dataset, column: str) -> dict[str, int]:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    blocks = pairs.select_columns([column]).with_format("arrow").iter(batch_size=10_000)
    sizes = np.concatenate([pc.list_value_length(block[column]).to_numpy() for block in blocks])
    points = np.percentile(sizes, _PERCENTILES, method="nearest")
    return {f"p{point}" if point < 100 else "max": int(size) for point, size in zip(_PERCENTILES, points, strict=True)}
