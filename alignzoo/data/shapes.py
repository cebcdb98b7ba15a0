"""The shapes of a data set, and which losses can read them."""

from __future__ import annotations

from collections.abc import Collection

from alignzoo.contract.card import Need
from alignzoo.contract.loss import Reads
from alignzoo.contract.shapes import SHAPES as SHAPES
from alignzoo.contract.shapes import Shape as Shape

SINGLE: frozenset[Shape] = frozenset({"unpaired", "demonstrations"})
"""The shapes with one response per prompt, so without an order."""

NOUNS: dict[Shape, str] = {
    "pairs": "pairs",
    "unpaired": "unpaired rows",
    "ranked": "ranked rows",
    "demonstrations": "demonstrations",
}
"""The rows' name in messages."""

_READERS: dict[Reads, tuple[Shape, ...]] = {
    "pairs": ("pairs", "ranked"),
    "lists": ("pairs", "ranked"),
    "responses": SHAPES,
    "chosen": SHAPES,
}
_ASKED: dict[Reads, str] = {
    "pairs": "pairs or ranked responses",
    "lists": "ranked responses or pairs",
    "responses": "labelled responses: unpaired data or pairs",
    "chosen": "responses to imitate",
}
_UNLABELLED: dict[Shape, str] = {"ranked": "have an order but no labels", "demonstrations": "have no labels"}


def readable(reads: Reads, needs: Collection[Need], shape: Shape) -> str | None:
    """None if a loss can read data of a shape, else why not.

    Args:
        reads: what the loss reads.
        needs: its needs beyond log-probs; ranked responses and demonstrations have no ``labels``.
    """
    unlabelled = shape in _UNLABELLED and reads == "responses" and "labels" in needs
    if shape in _READERS[reads] and not unlabelled:
        return None
    lacks = _UNLABELLED[shape] if unlabelled else "have one response per prompt, so nothing to compare"
    return f"it reads {_ASKED[reads]}, but {NOUNS[shape]} {lacks}"


def label_of(shape: Shape, rank: int) -> int:
    """The label of a response by its position in a row of pairs (+1, −1); 0, unknown, for ranked and single ones.

    For unpaired rows it is a column of the data.
    """
    return (1, -1)[rank] if shape == "pairs" else 0


def response_name(shape: Shape, rank: int) -> str:
    """The name of a response in messages and drop reasons."""
    return ("chosen", "rejected")[rank] if shape == "pairs" else "response"
