"""ShaPO: sharpness control on an alignment-critical parameter subspace, at token and reward level."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_shapo import reward, token


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of ShaPO's token level and reward level."""
    return [reward.CARD, token.CARD]
