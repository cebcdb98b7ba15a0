"""Robust wrappers, one file each, and published names for combinations."""

from alignzoo.plugin import Card, Composition, hookimpl
from alignzoo_robust import (
    cdpo,
    chi2_dro,
    cvar,
    doro,
    dpo_pro,
    drdpo,
    dro_calibrated,
    group_dro,
    kldpo,
    rdpo,
    re_po,
    soft_label,
    trim,
    wdpo,
    wdpo_winsor,
    wpo,
)

CARDS: list[Card] = [
    cdpo.CARD,
    chi2_dro.CARD,
    cvar.CARD,
    doro.CARD,
    dpo_pro.CARD,
    drdpo.CARD,
    dro_calibrated.CARD,
    group_dro.CARD,
    kldpo.CARD,
    rdpo.CARD,
    re_po.CARD,
    soft_label.CARD,
    trim.CARD,
    wdpo.CARD,
    wdpo_winsor.CARD,
    wpo.CARD,
]
COMPOSITIONS: list[Composition] = [cdpo.COMPOSITION, drdpo.COMPOSITION, rdpo.COMPOSITION, wpo.COMPOSITION]


@hookimpl
def alignzoo_methods() -> list[Card | Composition]:
    """The cards of the wrappers and combinations."""
    return [*CARDS, *COMPOSITIONS]
