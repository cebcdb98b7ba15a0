"""Preference losses, one file each, in a folder per family."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_losses import (
    adaptive,
    bounded,
    divergence,
    imitation,
    listwise,
    logistic,
    reference_free,
    safety,
    squared,
    unpaired,
)

FAMILIES = (logistic, squared, bounded, divergence, adaptive, reference_free, unpaired, listwise, imitation, safety)


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the losses."""
    return [card for family in FAMILIES for card in family.CARDS]
