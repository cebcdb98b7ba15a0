"""A hash of the rows that a run uses: what a resumed run compares with what it started from."""

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
    """A hash of the parts' rows, in order: it changes if and only if a row does, their order, or a label.

    It is put together from the hashes that were taken of each row when it was tokenised, so no row is read.

    Args:
        parts: rows selected from those of ``Prepared``, and the ids of those that label noise has flipped since.
    """
    content = sha256()
    for part, prepared, flipped in parts:
        ids = column(part, "row_id").to_numpy()
        rows = np.searchsorted(column(prepared.dataset, "row_id").to_numpy(), ids)
        content.update(len(ids).to_bytes(8, "little"))
        content.update(prepared.contents[rows].tobytes())
        content.update(np.isin(ids, np.asarray(flipped, np.int64)).tobytes())
    return content.hexdigest()
