"""Geometry controllers, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_geometry import plain


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The card of the plain controller."""
    return [plain.CARD]
