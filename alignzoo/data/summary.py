"""Summary of a source's rows: kept, dropped by reason, counted, and their lengths."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from alignzoo.data.shapes import NOUNS, Shape

_EXAMPLES = 20


@dataclass(frozen=True)
class Dropped:
    """The number of rows dropped for one reason, and the numbers (from 0, the ``row_id``) of the first ones."""

    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class DataSummary:
    """``counted``: boundary-moved, response-truncated, prompt-restored, duplicate among the kept rows; for unpaired
    rows also desirable and undesirable, for ranked rows all responses. ``lengths``: percentiles, in tokens."""

    source: str
    split: str | None
    format: str
    shape: Shape
    rows: int
    kept: int
    dropped: dict[str, Dropped]
    counted: dict[str, int]
    lengths: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able types."""
        return {**asdict(self), "dropped": {reason: _plain(entry) for reason, entry in self.dropped.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSummary:
        """The inverse of ``to_dict``."""
        dropped = {reason: Dropped(entry["count"], tuple(entry["rows"])) for reason, entry in values["dropped"].items()}
        return cls(**{**values, "dropped": dropped, "notes": tuple(values["notes"])})

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (what, count, detail) for a table of three columns."""
        name = self.source if self.split is None else f"{self.source} [{self.split}]"
        rows = [("rows read", str(self.rows), name), ("layout", "", self.format)]
        rows.append((f"{NOUNS[self.shape]} kept", str(self.kept), ""))
        rows += [(f"dropped: {reason}", str(entry.count), _shown(entry)) for reason, entry in self.dropped.items()]
        rows += [(f"counted: {what}", str(count), "") for what, count in self.counted.items() if count]
        for text, sizes in self.lengths.items():
            rows.append((f"{text} tokens", "", ", ".join(f"{point} {size}" for point, size in sizes.items())))
        return rows + [("note", "", note) for note in self.notes]


class Tally:
    """Counts rows by reason, with the numbers of the first ones."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows: dict[str, list[int]] = {}

    def add(self, reason: str, row: int) -> None:
        """Count one row; rows arrive in order."""
        self._counts[reason] += 1
        first = self._rows.setdefault(reason, [])
        if len(first) < _EXAMPLES:
            first.append(row)

    def dropped(self) -> dict[str, Dropped]:
        """The counts by reason, most frequent first."""
        return {reason: Dropped(count, tuple(self._rows[reason])) for reason, count in self._counts.most_common()}


def _plain(entry: Dropped) -> dict[str, Any]:
    return {"count": entry.count, "rows": list(entry.rows)}


def _shown(entry: Dropped) -> str:
    numbers = ", ".join(map(str, entry.rows[:5]))
    return f"rows {numbers}{', …' if entry.count > 5 else ''}"
