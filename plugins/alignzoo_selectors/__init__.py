"""Selectors: which training rows a run uses, in what order, under which labels; one file each."""

from alignzoo.plugin import SelectorCard, hookimpl
from alignzoo_selectors import harmful_prefix, perpcorrect, safedpo


@hookimpl
def alignzoo_methods() -> list[SelectorCard]:
    """The cards of the selectors."""
    return [safedpo.CARD, perpcorrect.CARD, harmful_prefix.CARD]
