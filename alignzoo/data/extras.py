"""Optional fields that any layout may have in extra columns: safety flags, scores, a group."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from alignzoo.data import fields
from alignzoo.data.fields import Row
from alignzoo.data.shapes import Shape

_ARROW_TYPES = {"safe": "bool", "score": "float64", "group": "string"}
"""The columns of the prepared data; the first two are lists with one value per response."""


@dataclass(frozen=True)
class _Extra:
    """A field of a layout's row: its possible source columns, how to read one, and the prepared column."""

    columns: tuple[str, ...]
    read: Callable[[Row, str], Any]
    prepared: str

    def column(self, present: Collection[str]) -> str | None:
        return next((name for name in self.columns if name in present), None)


_GROUP = {"group": _Extra(("group",), fields.label, "group")}
_OF_ONE = {
    "safe": _Extra(("safe",), fields.flag, "safe"),
    "score": _Extra(("score", "reward"), fields.number, "score"),
    **_GROUP,
}
_EXTRAS: dict[Shape, dict[str, _Extra]] = {
    "pairs": {
        "chosen_safe": _Extra(("chosen_safe",), fields.flag, "safe"),
        "rejected_safe": _Extra(("rejected_safe",), fields.flag, "safe"),
        "chosen_score": _Extra(("chosen_score", "score_chosen"), fields.number, "score"),
        "rejected_score": _Extra(("rejected_score", "score_rejected"), fields.number, "score"),
        **_GROUP,
    },
    "unpaired": _OF_ONE,
    "demonstrations": _OF_ONE,
    "ranked": {
        "safe": _Extra(("safe",), fields.flags, "safe"),
        "scores": _Extra(("scores",), fields.numbers, "score"),
        **_GROUP,
    },
}
OPTIONAL_FIELDS: dict[Shape, tuple[str, ...]] = {shape: tuple(extra) for shape, extra in _EXTRAS.items()}
"""The optional fields of a layout's row, by the layout's shape."""


def extras(row: Row, shape: Shape = "pairs") -> dict[str, Any]:
    """The values of the row's optional columns.

    Raises:
        FieldError: the column exists, but this row's value is missing or mistyped.
    """
    known = _EXTRAS[shape]
    found = {name: extra.column(row) for name, extra in known.items()}
    return {name: known[name].read(row, column) for name, column in found.items() if column is not None}


def extra_types(
    columns: Collection[str], shape: Shape, safety_columns: Collection[str] = (), gives: Collection[str] = ()
) -> dict[str, str]:
    """Name and Arrow type (of one value) of the optional columns that prepared rows have.

    A column exists if the source has it for every response.

    Args:
        columns: the source's columns.
        safety_columns: columns from which a layout derives safety flags.
        gives: fields that a layout always fills in.
    """
    derived = bool(safety_columns) and set(safety_columns) <= set(columns)
    known = _EXTRAS[shape]
    absent = {
        extra.prepared for name, extra in known.items() if name not in gives and extra.column(columns) is None
    } - ({"safe"} if derived else set())
    return {name: kind for name, kind in _ARROW_TYPES.items() if name not in absent}


def source_columns(prepared: str, shape: Shape) -> list[str]:
    """The source columns for a column of the prepared data, one name for each."""
    return [extra.columns[0] for extra in _EXTRAS[shape].values() if extra.prepared == prepared]
