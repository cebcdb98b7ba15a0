"""Losses without a reference model."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.reference_free import simpo

CARDS: list[Card | Composition] = [simpo.CARD]
