"""Losses without a reference model."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.reference_free import alphapo, cpo, gapo, orpo, simpo, slic

CARDS: list[Card | Composition] = [
    simpo.CARD,
    slic.CARD,
    cpo.CARD,
    orpo.CARD,
    alphapo.CARD,
    gapo.COMPOSITION,
]
