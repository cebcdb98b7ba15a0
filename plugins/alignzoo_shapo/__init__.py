"""ShaPO: sharpness control on an alignment-critical parameter subspace."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_shapo import token


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The card of ShaPO at token level."""
    return [token.CARD]
