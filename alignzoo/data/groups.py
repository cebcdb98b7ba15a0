"""Numbers the data's group names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.data.columns import column

if TYPE_CHECKING:
    from alignzoo.data.parts import Parts


def group_indices(parts: Parts) -> dict[str, int]:
    """Group names to numbers, independent of the order of the rows."""
    with_groups = [part for part in (parts.train, parts.held_out) if part is not None]
    names = {name for part in with_groups for name in column(part, "group").unique().to_pylist()}
    return {name: index for index, name in enumerate(sorted(names))}
