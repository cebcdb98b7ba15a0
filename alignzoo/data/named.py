"""The rows of data that a plugin brings by name."""

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
        DataError: it gives no rows, or none that make a table.
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
            f"data {card.name!r} gave no rows for its {split} split: {describe_error(error)}",
            hint=f"repair the plugin that brings {card.target}, or name other data",
        ) from error
    if not len(rows):
        raise DataError(f"the {split} split of data {card.name!r} has no rows", hint="name other data")
    return rows
