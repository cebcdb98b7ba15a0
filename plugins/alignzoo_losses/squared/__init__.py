"""Squared losses towards a target margin or a target log-ratio."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.squared import bfpo, cal_dpo, ipo, mallows_ipo, rebel, sppo_hard

CARDS: list[Card | Composition] = [
    ipo.CARD,
    bfpo.CARD,
    cal_dpo.CARD,
    mallows_ipo.CARD,
    rebel.CARD,
    sppo_hard.CARD,
]
