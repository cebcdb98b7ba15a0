"""The rows of a source as they were before tokenisation, for whoever reads the conversation and not the ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignzoo.data.formats import Layout
from alignzoo.data.rows import Drop, PromptRow, canonical

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class OriginalRows:
    """A source's rows and the layout that they are read by; nothing of them is stored a second time."""

    rows: Dataset
    layout: Layout

    def of(self, row_ids: Sequence[int]) -> Iterator[PromptRow]:
        """Kept rows, which the layout does not drop, in the order of their ids here; responses as label noise finds
        them."""
        columns = self.rows[list(row_ids)]
        for values in zip(*columns.values(), strict=True):
            row = self.layout.normalise(dict(zip(columns, values, strict=True)))
            assert not isinstance(row, Drop)
            yield canonical(row)
