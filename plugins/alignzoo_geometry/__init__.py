"""Geometry controllers and their companions, one file each."""

from alignzoo.plugin import GeometryCard, hookimpl
from alignzoo_geometry import (
    asam,
    ema,
    esam,
    friendly_sam,
    gapo,
    gsam,
    looksam,
    msam,
    nspo,
    plain,
    random,
    rwp,
    sam,
    ssam,
    swa,
    tr_dpo,
    wsam,
    zsharp,
)

SHARPNESS = (sam, asam, gsam, wsam, looksam, esam, friendly_sam, ssam, zsharp, msam, rwp, random, gapo)
AVERAGES = (ema, swa)
CONSTRAINTS = (nspo,)
REFERENCES = (tr_dpo,)


@hookimpl
def alignzoo_methods() -> list[GeometryCard]:
    """The cards of the controllers, then those of the companions."""
    return [method.CARD for method in (plain, *SHARPNESS, *AVERAGES, *CONSTRAINTS, *REFERENCES)]
