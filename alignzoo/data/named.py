"""The rows of named data from a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.contract.card import DataExtension
from alignzoo.contract.source import Split
from alignzoo.errors import AlignzooError, DataError, contained
from alignzoo.plugin.build import import_target
from alignzoo.plugin.faults import describe_error

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
    try:
        with contained():
            rows = Dataset.from_list([dict(row) for row in source().rows(split)])
    except AlignzooError:
        raise
    except Exception as error:
        raise DataError(
            f"data {card.name!r} failed to provide its {split} split: {describe_error(error)}",
            hint=f"fix the plugin that provides {card.target}, or use other data",
        ) from error
    if not len(rows):
        raise DataError(f"the {split} split of data {card.name!r} has no rows", hint="use other data")
    return rows
