"""Logistic losses of the difference of log-ratios: DPO, and DPO with a margin."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.logistic import dpo

CARDS: list[Card | Composition] = [dpo.CARD]
