"""The methods that the words of a run ask for, before they make a plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from alignzoo.contract.card import Card, Composition, Need
from alignzoo.errors import AlignzooError
from alignzoo.plan.plan import Method
from alignzoo.plugin.build import default_needs


@dataclass
class Pick:
    """A method that the words name, bring or leave to the default.

    Attributes:
        called: the names that stand for it in these words: its own, an alias, that of a composition.
        by: the composition it is a part of, the outermost one; None if it was named itself.
        method: None while its options are not built, or where they cannot be.
    """

    card: Card
    called: set[str] = field(default_factory=set)
    by: Composition | None = None
    method: Method | None = None

    @property
    def needs(self) -> frozenset[Need]:
        return default_needs(self.card) if self.method is None else self.method.needs


@dataclass
class Selection:
    """The methods that layered words ask for.

    Attributes:
        picks: by kind, in the order of the table; every kind is there.
        notes: what to say of it.
        problems: every mistake in the words about methods.
        unresolved: the kinds of which some name could not be found.
    """

    picks: dict[str, list[Pick]]
    notes: list[str] = field(default_factory=list)
    problems: list[AlignzooError] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)

    @property
    def cards(self) -> list[Card]:
        """The cards of all methods, in the order of the table."""
        return [pick.card for picks in self.picks.values() for pick in picks]

    def methods(self) -> dict[str, tuple[Method, ...]]:
        """The methods by kind; one whose options are wrong is not among them."""
        return {kind: tuple(p.method for p in picks if p.method is not None) for kind, picks in self.picks.items()}


def is_companion(card: Card) -> bool:
    """Whether a method leaves the work of its kind to another one of that kind."""
    return bool(getattr(card, "companion", False))
