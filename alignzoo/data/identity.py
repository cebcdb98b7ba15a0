"""A hash of the pairs that a run uses: what a resumed run compares with what it started from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.data.columns import column
from alignzoo.data.prepare import Prepared

if TYPE_CHECKING:
    from datasets import Dataset


def pairs_identity(parts: Iterable[tuple[Dataset, Prepared, Sequence[int]]]) -> str:
    """A hash of the parts' pairs, in order: it changes if and only if a pair does, their order, or a label.

    It is put together from the hashes that were taken of each pair when it was tokenised, so no pair is read.

    Args:
        parts: pairs selected from the rows of ``Prepared``, and the ids of those whose sides were swapped since.
    """
    content = sha256()
    for pairs, prepared, swapped in parts:
        ids = column(pairs, "pair_id").to_numpy()
        rows = np.searchsorted(column(prepared.dataset, "pair_id").to_numpy(), ids)
        content.update(len(ids).to_bytes(8, "little"))
        content.update(prepared.contents[rows].tobytes())
        content.update(np.isin(ids, np.asarray(swapped, np.int64)).tobytes())
    return content.hexdigest()
