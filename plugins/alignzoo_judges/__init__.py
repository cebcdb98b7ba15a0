"""Judges of generated responses, one file each."""

from alignzoo.plugin import Card, hookimpl


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The judges."""
    return []
