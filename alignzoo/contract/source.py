"""Named data that a plugin provides, as rows from any source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Split = Literal["train", "validation"]


class DataSource:
    """Data by name (``--data NAME``), built without arguments."""

    def rows(self, split: Split) -> Iterable[Mapping[str, Any]]:
        """The rows of a split, the same rows in the same order at every call.

        Their columns follow a built-in layout or one that a plugin provides. ``validation`` is requested only if
        the card says ``held_out``.
        """
        raise NotImplementedError
