"""Squared losses towards a target margin or a target log-ratio."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.squared import ipo

CARDS: list[Card | Composition] = [ipo.CARD]
