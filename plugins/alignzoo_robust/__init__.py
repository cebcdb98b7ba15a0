"""Robust wrappers, one file each, and the published names of their combinations."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_robust import drdpo


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    return [drdpo.CARD, drdpo.COMPOSITION]
