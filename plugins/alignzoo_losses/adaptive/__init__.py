"""Losses whose margin, β or weight depends on the pair or on the step."""

from alignzoo.plugin import Card, Composition

CARDS: list[Card | Composition] = []
