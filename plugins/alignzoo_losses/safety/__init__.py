"""Losses that read safety labels or train refusals."""

from alignzoo.plugin import Card, Composition

CARDS: list[Card | Composition] = []
