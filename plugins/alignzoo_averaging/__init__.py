"""Averages of the weights over training, as companions of any controller, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_averaging import ema, swa


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The cards of the averages."""
    return [ema.CARD, swa.CARD]
