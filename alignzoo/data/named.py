"""The rows of named data from a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.contract.card import DataExtension
from alignzoo.contract.source import Split
from alignzoo.errors import DataError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import guarded

if TYPE_CHECKING:
    from datasets import Dataset


def named_rows(card: DataExtension, split: Split) -> Dataset:
    """The rows of a split.

    Raises:
        BrokenPluginError: the target of the card does not load.
        DataError: it returns no rows, or rows that do not form a table.
    """
    from datasets import Dataset

    source = import_target(card)
    with guarded(
        f"data {card.name!r} gave no rows for its {split} split",
        error=DataError,
        hint=f"fix the plugin that provides {card.target}, or use other data",
    ):
        rows = Dataset.from_list([dict(row) for row in source().rows(split)])
    if not len(rows):
        raise DataError(f"the {split} split of data {card.name!r} has no rows", hint="use other data")
    return rows
