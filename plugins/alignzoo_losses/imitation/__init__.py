"""Losses that raise or lower the likelihood of single responses."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.imitation import constrained_sft, npo, sft

CARDS: list[Card | Composition] = [sft.CARD, constrained_sft.CARD, npo.CARD]
