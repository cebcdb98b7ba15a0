"""Losses of ranked lists of responses."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.listwise import pl_dpo

CARDS: list[Card | Composition] = [pl_dpo.CARD]
