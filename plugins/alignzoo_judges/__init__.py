"""Judges of generated responses, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_judges import refusal


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The judges."""
    return [
        refusal.CARD,
    ]
