"""The rows of named data from a plugin."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from alignzoo.contract.card import DataExtension
from alignzoo.contract.source import Split
from alignzoo.errors import DataError
from alignzoo.plugin.build import import_target
from alignzoo.plugin.guard import guarded

if TYPE_CHECKING:
    from datasets import Dataset


def named_rows(card: DataExtension, split: Split) -> Dataset:
    """The rows of a split as a table; raises as :func:`rows_of` and :func:`as_dataset`."""
    return as_dataset(card, split, rows_of(card, split))


def rows_of(card: DataExtension, split: Split) -> list[dict[str, Any]]:
    """The rows of a split, as the plugin gives them.

    Raises:
        BrokenPluginError: the target of the card does not load.
        DataError: it returns no rows.
    """
    source = import_target(card)
    with _guarded(card, split):
        rows = [dict(row) for row in source().rows(split)]
    if not rows:
        raise DataError(f"the {split} split of data {card.name!r} has no rows", hint="use other data")
    return rows


def as_dataset(card: DataExtension, split: Split, rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Those rows as a table.

    Raises:
        DataError: they do not form one.
    """
    from datasets import Dataset

    with _guarded(card, split):
        return Dataset.from_list(list(rows))


def rows_content(rows: Sequence[Mapping[str, Any]]) -> str:
    """A hash of rows within this process: equal only for rows with the same content."""
    try:
        return hashlib.sha256(pickle.dumps(rows, protocol=5)).hexdigest()
    except Exception:  # no rows that a table could hold, which its making says better
        return uuid4().hex


def _guarded(card: DataExtension, split: Split) -> AbstractContextManager[None]:
    return guarded(
        f"data {card.name!r} gave no rows for its {split} split",
        error=DataError,
        hint=f"fix the plugin that provides {card.target}, or use other data",
    )
