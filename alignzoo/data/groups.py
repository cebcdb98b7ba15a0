"""Numbers of the groups that the data names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.data.columns import column

if TYPE_CHECKING:
    from alignzoo.data.parts import Parts


def group_indices(parts: Parts) -> dict[str, int]:
    """From a group's name to its number: the same whatever the order of the rows."""
    with_groups = [part for part in (parts.train, parts.held_out) if part is not None]
    names = {name for part in with_groups for name in column(part, "group").unique().to_pylist()}
    return {name: index for index, name in enumerate(sorted(names))}
