"""Losses of single responses, relative to a running or batch-wide baseline."""

from alignzoo.plugin import Card, Composition
from alignzoo_losses.unpaired import apo_zero_unpaired, bco, bco_pair, kto, kto_pair

CARDS: list[Card | Composition] = [kto.CARD, kto_pair.CARD, bco.CARD, bco_pair.CARD, apo_zero_unpaired.CARD]
