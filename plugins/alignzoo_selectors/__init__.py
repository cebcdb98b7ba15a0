"""Selectors: which training rows a run uses, in what order, under which labels; one file each."""

from alignzoo.plugin import SelectorCard, hookimpl
from alignzoo_selectors import (
    domains,
    group_flips,
    harmful_prefix,
    length_flips,
    margin_flips,
    near_duplicates,
    perpcorrect,
    safedpo,
    uniform_flips,
)


@hookimpl
def alignzoo_methods() -> list[SelectorCard]:
    """The cards of the selectors."""
    return [
        safedpo.CARD,
        perpcorrect.CARD,
        harmful_prefix.CARD,
        uniform_flips.CARD,
        margin_flips.CARD,
        group_flips.CARD,
        length_flips.CARD,
        near_duplicates.CARD,
        domains.CARD,
    ]
