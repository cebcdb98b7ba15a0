"""Data that a plugin brings by name: rows, from wherever it has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Split = Literal["train", "validation"]


class DataSource:
    """Data by name (``--data NAME``), built without arguments."""

    def rows(self, split: Split) -> Iterable[Mapping[str, Any]]:
        """The rows of a split, the same ones in the same order at every call.

        Their columns are those of a built-in layout, or of one that a plugin brings. ``validation`` is asked for only
        where the card says ``held_out``.
        """
        raise NotImplementedError
