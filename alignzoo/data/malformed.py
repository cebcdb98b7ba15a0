"""Rows with missing or mistyped fields: dropped and counted by field, or rejected with ``--data.strict``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignzoo.data.rows import Drop, FieldError
from alignzoo.data.sources import locate
from alignzoo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from alignzoo.data.formats import Layout
    from alignzoo.data.prepare import Prepared
    from alignzoo.data.summary import Dropped

_REASON = "malformed-"
_INDEX = re.compile(r"\[\d+\]")


def malformed(error: FieldError) -> Drop:
    """The drop reason of a row with such a field: ``malformed-chosen.content`` for any message."""
    return Drop(_REASON + _INDEX.sub("", error.field))


def malformed_rows(reasons: Mapping[str, Dropped]) -> tuple[int, list[int]]:
    """The number of malformed rows, and the numbers of the first few, in order."""
    dropped = [entry for reason, entry in reasons.items() if reason.startswith(_REASON)]
    return sum(entry.count for entry in dropped), sorted(row for entry in dropped for row in entry.rows)


def describe_rows(rows: Dataset, layout: Layout, source: str | None, numbers: list[int]) -> list[str]:
    """The problem of each of these malformed rows: file, line and field."""
    problems = []
    for number, place in zip(numbers, locate(source, numbers), strict=True):
        try:
            layout.normalise(rows[number])
        except FieldError as error:
            problems.append(f"{place}: field {error.field!r} {error.problem}")
    return problems


def malformed_warning(prepared: Prepared) -> str | None:
    """A warning about dropped malformed rows: how many, and the problem of the first."""
    count, numbers = malformed_rows(prepared.summary.dropped)
    if not count:
        return None
    original, source = prepared.original, prepared.summary.source
    (first,) = describe_rows(original.rows, original.layout, source, numbers[:1])
    rows = f"{count} malformed row" + ("s" if count > 1 else "")
    return f"{rows} of {prepared.summary.rows} dropped, the first at {first}; --data.strict lists them and stops"


def refuse_malformed(prepared: Prepared) -> None:
    """Reject data with malformed rows.

    Raises:
        DataError: lists them.
    """
    count, numbers = malformed_rows(prepared.summary.dropped)
    if not count:
        return
    source, layout = prepared.summary.source, prepared.original.layout
    lines = describe_rows(prepared.original.rows, layout, source, numbers)
    if count > len(lines):
        lines.append(f"… and {count - len(lines)} more")
    lines += [f"layout {layout.name}: {layout.columns}", "without --data.strict they are dropped and counted"]
    raise DataError(f"{source}: {count} of {prepared.summary.rows} rows are malformed", hint="\n  ".join(lines))
