"""Checks that the rows of a plugin's data match its card."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from alignzoo.contract.card import DataExtension
from alignzoo.contract.source import DataSource, Split
from alignzoo.plugin.registry import registry

ROWS = 64
"""Rows of a split that are looked at."""


def wrong_rows(card: DataExtension, source: DataSource) -> str | None:
    """What is wrong with the first rows of each split.

    Raises:
        AlignzooError: no layout fits them, or there is no such evaluator.
    """
    if card.evaluator is not None:
        registry().find_extension("evaluator", card.evaluator)
    splits: tuple[Split, ...] = ("train", "validation") if card.held_out else ("train",)
    return next(filter(None, (_wrong_split(card, source, split) for split in splits)), None)


def _wrong_split(card: DataExtension, source: DataSource, split: Split) -> str | None:
    from datasets import Dataset

    from alignzoo.data.formats import choose_layout
    from alignzoo.data.rows import FieldError

    rows: list[Any] = list(islice(source.rows(split), ROWS))
    if not rows:
        return f"its {split} split has no rows"
    other = next((row for row in rows if not isinstance(row, Mapping)), None)
    if other is not None:
        return f"a row of its {split} split has type {type(other).__name__}, expected a mapping"
    if list(islice(source.rows(split), ROWS)) != rows:
        return f"its {split} split has other rows at the second call"
    layout = choose_layout(Dataset.from_list([dict(row) for row in rows]), card.layout)
    for position, row in enumerate(rows if card.clean else ()):
        try:
            layout.normalise(row)
        except FieldError as error:
            return f"its card says that it is clean, and row {position} of its {split} split is malformed: {error}"
    return None
