"""``Layout``: how the rows of a source are recognised and read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from alignzoo.data.fields import Row
from alignzoo.data.rows import Drop, PreferenceRow, RankedRow, UnpairedRow
from alignzoo.data.shapes import Shape


def _no_notes(columns: Collection[str]) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Layout:
    """``columns`` is for people; ``fits`` looks at one row; ``normalise`` may raise ``FieldError``.

    ``safety_columns``: where the layout takes the responses' safety flags from, if all of them are there.
    ``gives``: optional fields of the row that it fills in whatever the columns are called.
    ``version``: a hash of the plugin that brings it, empty for the built-in ones.
    ``shape``: what its rows are: ``normalise`` gives a ``PreferenceRow``, an ``UnpairedRow`` or a ``RankedRow``.
    ``notes``: what the data report says about data with these columns.
    """

    name: str
    columns: str
    fits: Callable[[Row], bool]
    normalise: Callable[[Row], PreferenceRow | UnpairedRow | RankedRow | Drop]
    safety_columns: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    version: str = ""
    shape: Shape = "pairs"
    notes: Callable[[Collection[str]], Sequence[str]] = _no_notes
