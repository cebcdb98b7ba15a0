"""A hash of the rows that a run uses, which a resumed run compares with the original's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column
from alignzoo.data.prepare import Prepared

if TYPE_CHECKING:
    from datasets import Dataset


def rows_identity(parts: Iterable[tuple[Dataset, Prepared, Collection[int], Mapping[int, int]]]) -> str:
    """A hash of the parts' rows, in order: it changes if and only if a row, their order, or a label changes.

    It combines the per-row hashes taken at tokenisation, so no row is read.

    Args:
        parts: rows from ``Prepared``; the ids of those that have got the opposite label since; and by id, how many
            tokens of a response have moved to its prompt.
    """
    content = sha256()
    for part, prepared, flipped, prefixes in parts:
        ids = column(part, "row_id").to_numpy()
        known = column(prepared.dataset, "row_id").to_numpy()
        content.update(len(ids).to_bytes(8, "little"))
        content.update(prepared.contents[np.searchsorted(known, ids)].tobytes())
        content.update(np.isin(ids, np.fromiter(flipped, np.int64)).tobytes())
        if prefixes:
            content.update(np.array([prefixes.get(row, 0) for row in ids.tolist()], "<i8").tobytes())
    return content.hexdigest()
