"""Losses for safety: they read which responses are safe."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.safety import door, safedpo, w_door

CARDS: list[Card | Composition] = [safedpo.CARD, door.CARD, w_door.CARD]
