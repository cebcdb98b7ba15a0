"""Values by the content that they follow from, kept for the life of a process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Keeps values for later runs of a process.

    A key states everything that its value follows from, by content. Whoever gets a value must not change it.

    Args:
        limit: values of one kind that are kept; the one that was used longest ago is dropped first. With 0
            none is kept.
    """

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self._kinds: dict[str, dict[Hashable, Any]] = {}

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; made if it is not there."""
        values = self._kinds.setdefault(kind, {})
        value = values.pop(key) if key in values else make()
        values[key] = value
        while len(values) > self.limit:
            del values[next(iter(values))]
        return value
