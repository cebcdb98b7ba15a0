"""Aggregations: how log-probs of tokens become the log-prob of a response, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_aggregation import ld, mean, sum


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The cards of the aggregations."""
    return [ld.CARD, mean.CARD, sum.CARD]
