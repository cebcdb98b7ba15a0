"""The view of a combination of methods that conflict rules get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from alignzoo.contract.card import Card, Need


class Chosen(Protocol):
    """A method of a run."""

    @property
    def card(self) -> Card: ...

    @property
    def needs(self) -> frozenset[Need]:
        """Its needs, given its options."""

    @property
    def under(self) -> frozenset[str]:
        """The aggregations that a loss is defined under, given its options; empty for any."""

    @property
    def couples(self) -> bool:
        """Whether a value depends on the others of its step, given its options."""


Choice = Mapping[str, Sequence[Chosen]]
"""The methods of a run by kind; every kind is a key."""
