"""Runs grouped by everything but their seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignzoo.records.run import RunRecord


@dataclass(frozen=True)
class Group:
    """Finished runs that differ only in their seed.

    Attributes:
        label: what tells it from the other groups of its block, such as ``dpo sam`` or ``dpo lr=0.0001``.
        runs: by seed.
        values: the words that tell groups apart, with this group's values.
        block: what its block shares, such as ``label-noise=0.2``; groups are compared within a block.
    """

    label: str
    runs: Mapping[int, RunRecord]
    values: Mapping[str, Any] = field(default_factory=dict)
    block: str = ""
