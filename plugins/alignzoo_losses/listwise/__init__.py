"""Losses of ranked lists of responses."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.listwise import all_pairs_dpo, lipo_lambda, pl_dpo, pro, tpo, tpo_l

CARDS: list[Card | Composition] = [pl_dpo.CARD, all_pairs_dpo.CARD, lipo_lambda.CARD, pro.CARD, tpo.CARD, tpo_l.CARD]
