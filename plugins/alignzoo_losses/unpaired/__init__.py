"""Losses of single responses, relative to a running or batch-wide baseline."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.unpaired import kto

CARDS: list[Card | Composition] = [kto.CARD]
