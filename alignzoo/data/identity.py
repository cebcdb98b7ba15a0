"""A hash of the rows that a run uses, which a resumed run compares with the original's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column
from alignzoo.data.prepare import Prepared

if TYPE_CHECKING:
    from datasets import Dataset


def rows_identity(parts: Iterable[tuple[Dataset, Prepared, Sequence[int]]]) -> str:
    """A hash of the parts' rows, in order: it changes if and only if a row, their order, or a label changes.

    It combines the per-row hashes taken at tokenisation, so no row is read.

    Args:
        parts: rows from ``Prepared``, and the ids of those that label noise has flipped since.
    """
    content = sha256()
    for part, prepared, flipped in parts:
        ids = column(part, "row_id").to_numpy()
        rows = np.searchsorted(column(prepared.dataset, "row_id").to_numpy(), ids)
        content.update(len(ids).to_bytes(8, "little"))
        content.update(prepared.contents[rows].tobytes())
        content.update(np.isin(ids, np.asarray(flipped, np.int64)).tobytes())
    return content.hexdigest()
