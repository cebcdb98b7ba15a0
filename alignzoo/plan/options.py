"""A method's option values from layers, and its weight in a mixture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from alignzoo.base.shown import shown
from alignzoo.contract.card import WEIGHT, Card
from alignzoo.contract.kinds import Kind
from alignzoo.errors import UsageError
from alignzoo.plan.recipe import Layer

_WEIGHT = TypeAdapter(Annotated[float, Field(gt=0, allow_inf_nan=False)])


def values_of(
    layers: Sequence[Layer], kind: Kind, card: Card, called: Collection[str], *, alone: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a method's options, and where each came from.

    Of several methods, and of a stack, a bare ``kind.option`` goes to those that have it; ``kind.NAME.option`` goes to
    that one, and wins over a bare word of the same layer.

    Args:
        layers: those that speak of the method, weakest first.
        called: the names that stand for the method in these words.
        alone: the run has no other method of the kind.
    """
    fields = card.options.model_fields
    shared = kind.multiplicity == "stack" or not alone
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key in sorted(layer.values, key=lambda key: key.count(".")):
            first, *rest = key.split(".")
            if first != kind.name or len(rest) not in (1, 2):
                continue
            owner, option = (rest[0] if len(rest) == 2 else None), rest[-1]
            takes = owner in called if owner is not None else option in fields or not shared
            if option == WEIGHT and is_weighed(kind, card):
                takes = owner in called and not alone  # anything else is refused: see `unclaimed`
            if takes:
                values[option], origins[option] = layer.values[key], layer.origin
    return values, origins


def is_weighed(kind: Kind, card: Card) -> bool:
    """Whether ``weight`` is a word of the mixture: a card of API 1 may have an option of that name."""
    return kind.multiplicity == "mixture" and WEIGHT not in card.options.model_fields


def weight_of(kind: Kind, card: Card, values: dict[str, Any]) -> float:
    """What a method counts, taken out of the values of its options; 1 where nothing is said.

    Raises:
        UsageError: it is no number greater than 0.
    """
    if not is_weighed(kind, card) or WEIGHT not in values:
        return 1.0
    value = values.pop(WEIGHT)
    try:
        if isinstance(value, bool):
            raise ValueError
        return _WEIGHT.validate_python(value)
    except ValueError as error:  # pydantic's errors are ones
        raise UsageError(
            f"--{kind.name}.{card.name}.{WEIGHT}: must be a number greater than 0 (got {shown(value)})"
        ) from error
