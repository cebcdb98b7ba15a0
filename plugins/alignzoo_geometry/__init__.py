"""Geometry controllers, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_geometry import plain


@hookimpl
def alignzoo_methods() -> list[Card]:
    return [plain.CARD]
