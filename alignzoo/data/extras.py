"""The optional fields that any layout may carry in columns of their own: safety flags, scores, a group."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from alignzoo.data import fields
from alignzoo.data.fields import Row


@dataclass(frozen=True)
class _Extra:
    columns: tuple[str, ...]
    read: Callable[[Row, str], Any]
    arrow_type: str

    def column(self, present: Collection[str]) -> str | None:
        return next((name for name in self.columns if name in present), None)


_EXTRAS = {
    "chosen_safe": _Extra(("chosen_safe",), fields.flag, "bool"),
    "rejected_safe": _Extra(("rejected_safe",), fields.flag, "bool"),
    "chosen_score": _Extra(("chosen_score", "score_chosen"), fields.number, "float64"),
    "rejected_score": _Extra(("rejected_score", "score_rejected"), fields.number, "float64"),
    "group": _Extra(("group",), fields.label, "string"),
}


OPTIONAL_FIELDS = tuple(_EXTRAS)
"""The optional fields of a ``PreferenceRow``."""


def extras(row: Row) -> dict[str, Any]:
    """The values that the row's columns offer.

    Raises:
        FieldError: the column is there, but this row's value is missing or mistyped.
    """
    found = {name: extra.column(row) for name, extra in _EXTRAS.items()}
    return {name: _EXTRAS[name].read(row, column) for name, column in found.items() if column is not None}


def extra_types(
    columns: Collection[str], safety_columns: Collection[str] = (), gives: Collection[str] = ()
) -> dict[str, str]:
    """Name and Arrow type of the optional fields that rows with ``columns`` have.

    Args:
        columns: the source's columns.
        safety_columns: columns from which a layout derives both safety flags.
        gives: fields that a layout fills in in any case.
    """
    derived = {"chosen_safe", "rejected_safe"} if safety_columns and set(safety_columns) <= set(columns) else set()
    derived |= set(gives)
    present = {name: extra for name, extra in _EXTRAS.items() if name in derived or extra.column(columns)}
    return {name: extra.arrow_type for name, extra in present.items()}
