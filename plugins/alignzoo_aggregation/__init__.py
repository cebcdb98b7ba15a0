"""Aggregations: how log-probs of tokens become the log-prob of a response, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_aggregation import humanline, ld, mean, otpo, sampo, sum, tis_dpo


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The cards of the aggregations."""
    return [method.CARD for method in (sum, mean, ld, sampo, otpo, tis_dpo, humanline)]
