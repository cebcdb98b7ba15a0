"""Sharpness-aware controllers, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_sharpness import asam, esam, friendly_sam, gapo, gsam, looksam, msam, random, rwp, sam, ssam, wsam, zsharp


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The cards of the sharpness-aware controllers."""
    methods = (sam, asam, gsam, wsam, looksam, esam, friendly_sam, ssam, zsharp, msam, rwp, random, gapo)
    return [method.CARD for method in methods]
