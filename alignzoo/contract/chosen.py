"""What rules about a combination of methods see of it."""

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
        """What it needs with the options that it has."""


Choice = Mapping[str, Sequence[Chosen]]
"""The methods of a run by kind; every kind is there."""
