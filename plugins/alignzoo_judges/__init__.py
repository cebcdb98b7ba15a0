"""Judges of generated responses, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_judges import endpoint, pairwise, pairwise_scores, refusal


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The judges."""
    return [
        refusal.CARD,
        endpoint.CARD,
        pairwise.CARD,
        pairwise.ENDPOINT_CARD,
        pairwise_scores.CARD,
        pairwise_scores.LONGER_CARD,
    ]
