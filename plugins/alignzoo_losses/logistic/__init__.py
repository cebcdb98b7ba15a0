"""Logistic losses of the difference of log-ratios: DPO, and DPO with a margin."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.logistic import dpo, dpo_norm, dpo_shift, dpop, nca_pair, odpo, r_dpo

CARDS: list[Card | Composition] = [
    dpo.CARD,
    dpo_norm.CARD,
    dpo_shift.CARD,
    dpop.CARD,
    nca_pair.CARD,
    odpo.CARD,
    r_dpo.CARD,
]
