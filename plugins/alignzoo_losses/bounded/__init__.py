"""Losses whose value or gradient is bounded, so that mislabelled pairs cost little."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.bounded import apo_down, apo_zero, discopop, gce, hinge, holder_dpo, ropo, sympo

CARDS: list[Card | Composition] = [
    hinge.CARD,
    apo_zero.CARD,
    apo_down.CARD,
    discopop.CARD,
    sympo.CARD,
    holder_dpo.CARD,
    ropo.CARD,
    gce.CARD,
]
