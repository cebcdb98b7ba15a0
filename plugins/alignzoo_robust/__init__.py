"""Robust wrappers, one file each, and published names for combinations."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_robust import drdpo, soft_label


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the wrappers and combinations."""
    return [drdpo.CARD, drdpo.COMPOSITION, soft_label.CARD]
