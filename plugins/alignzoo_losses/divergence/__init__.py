"""Losses derived from other divergences than the reverse KL, or that constrain them."""

from alignzoo.plugin import Card, Composition

CARDS: list[Card | Composition] = []
