"""What training must leave as it is, as companions of any controller, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_constraint import nspo


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The cards of the constraints."""
    return [nspo.CARD]
