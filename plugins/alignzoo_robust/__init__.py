"""Robust wrappers, one file each, and the published names of their combinations."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_robust import drdpo, soft_label


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the wrappers, and the names of their combinations."""
    return [drdpo.CARD, drdpo.COMPOSITION, soft_label.CARD]
