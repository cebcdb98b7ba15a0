"""Some of the data's groups: as an option names them, or drawn."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.base.suggest import suggest
from alignzoo.errors import DataError
from alignzoo_selectors.noise import uniforms


def listed(names: str | None) -> frozenset[str]:
    """The names of a comma-separated list; none without one."""
    return frozenset(name.strip() for name in (names or "").split(",") if name.strip())


def named(asked: frozenset[str], groups: Sequence[str], flag: str) -> frozenset[str]:
    """The groups that were asked for.

    Raises:
        DataError: the rows have no such group.
    """
    known = sorted(set(groups))
    for name in sorted(asked - set(known)):
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise DataError(
            f"{flag}: no training row has the group {name!r}",
            hint=suggest(name, known) or f"the groups are {shown}",
        )
    return asked


def drawn(name: str, seed: int, groups: Sequence[str], share: float) -> frozenset[str]:
    """``round(share·G)`` of the G groups, at least one, which depend on the seed and their names alone."""
    known = sorted(set(groups))
    order = sorted(zip(uniforms(name, seed, known), known, strict=True))
    return frozenset(group for _, group in order[: max(1, round(share * len(known)))])
