"""Losses whose margin, β or weight depends on the pair or on the step."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.adaptive import alpha_dpo, aot, aot_unpaired, beta_dpo, gamma_po, mallows_dpo

CARDS: list[Card | Composition] = [
    alpha_dpo.CARD,
    aot.CARD,
    aot_unpaired.CARD,
    beta_dpo.CARD,
    gamma_po.CARD,
    mallows_dpo.CARD,
]
