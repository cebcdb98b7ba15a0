"""Losses under other divergences from the reference than DPO's reverse KL."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.divergence import chi_po, exo_pair, f_dpo, square_chi_po, squaredpo, tdpo1, tdpo2

CARDS: list[Card | Composition] = [
    f_dpo.CARD,
    exo_pair.CARD,
    squaredpo.CARD,
    chi_po.CARD,
    square_chi_po.CARD,
    tdpo1.CARD,
    tdpo2.CARD,
]
