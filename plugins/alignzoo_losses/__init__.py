"""Preference losses, one file each."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_losses import dpo, ipo, simpo


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the losses."""
    return [dpo.CARD, ipo.CARD, simpo.CARD]
