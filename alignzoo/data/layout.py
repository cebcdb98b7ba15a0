"""``Layout``: recognises and reads the rows of a source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from alignzoo.data.fields import Row
from alignzoo.data.rows import Drop, SourceRow
from alignzoo.data.shapes import Shape


def _no_notes(columns: Collection[str]) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Layout:
    """``columns`` is a description; ``fits`` checks one row; ``normalise`` may raise ``FieldError``.

    ``safety_columns``: the source of the responses' safety flags, if all of these columns exist.
    ``gives``: optional fields of the row that it fills in regardless of column names.
    ``version``: a hash of the plugin that provides it, empty for built-in layouts.
    ``shape``: the shape of its rows: ``normalise`` returns a ``PreferenceRow``, an ``UnpairedRow``, a ``RankedRow`` or
    a ``DemonstrationRow``.
    ``notes``: notes for the data report about data with these columns.
    """

    name: str
    columns: str
    fits: Callable[[Row], bool]
    normalise: Callable[[Row], SourceRow | Drop]
    safety_columns: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    version: str = ""
    shape: Shape = "pairs"
    notes: Callable[[Collection[str]], Sequence[str]] = _no_notes
