"""Losses whose value or gradient is bounded, so that mislabelled pairs cost little."""

from alignzoo.plugin import Card, Composition

CARDS: list[Card | Composition] = []
