"""Preference losses, one file each."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_losses import dpo, ipo, kto, pl_dpo, sft, simpo


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the losses."""
    return [dpo.CARD, ipo.CARD, kto.CARD, pl_dpo.CARD, sft.CARD, simpo.CARD]
