"""The rows of a source before tokenisation, for code that needs the text and not the ids."""

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
    """A source's rows and the layout that reads them; nothing is stored twice."""

    rows: Dataset
    layout: Layout

    def of(self, row_ids: Sequence[int]) -> Iterator[PromptRow]:
        """Kept rows, in the order of their ids here, with their responses before label noise."""
        columns = self.rows[list(row_ids)]
        for values in zip(*columns.values(), strict=True):
            row = self.layout.normalise(dict(zip(columns, values, strict=True)))
            assert not isinstance(row, Drop)
            yield canonical(row)
