"""Where a search looks: the range of each option, from its card.

==================  ==================================================================================================
option              range
==================  ==================================================================================================
positive number     a decade below the default to a decade above it, on a log scale; with an upper bound and a default
                    of at least a tenth of it, linear between the bounds
number, default 0   linear between the bounds; without an upper bound none
integer             linear, a quarter of the default to four times the default
yes or no, words    every value
path, text, None    none
==================  ==================================================================================================

All are cut by the field's bounds. A card states another range with ``json_schema_extra={"search": [low, high]}``
(logarithmic if ``high >= 10 * low > 0``), ``{"search": [word, …]}``, or ``{"search": []}`` for none.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from alignzoo.contract.card import Options, is_path
from alignzoo.contract.kinds import KINDS

if TYPE_CHECKING:
    from alignzoo.plan.plan import Plan

SEARCHED = ("loss", "aggregation", "robust", "geometry", "selector")
"""Kinds whose options are searched; those of a reward or a judge say how responses are scored."""
DECADE = 10.0
_FACTOR = 4
_MARGIN = 0.02
"""Distance to an excluded bound, as a share of the range."""


@dataclass(frozen=True)
class Scale:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        log: whether equal ratios, not equal differences, are equally likely.
        integer: whether only whole numbers count.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def text(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Words:
    """One of several values."""

    values: tuple[Any, ...]

    def text(self) -> str:
        return ", ".join(map(str, self.values))


Range = Scale | Words


@dataclass(frozen=True)
class _Bounds:
    """Of a field: the least and the largest value, and whether these are excluded."""

    low: float
    high: float
    above: bool
    below: bool


def space(plan: Plan) -> dict[str, Range]:
    """The ranges of a plan's options, by the words that set them: ``loss.beta``, ``robust.drdpo.beta_prime``."""
    found: dict[str, Range] = {}
    for kind in SEARCHED:
        methods = plan.of(kind)
        qualified = len(methods) > 1 or KINDS[kind].multiplicity == "stack"
        for method in methods:
            prefix = f"{kind}.{method.card.name}" if qualified else kind
            for name, field in method.card.options.model_fields.items():
                one = allowed(option_range(field), name, method.options)
                if one is not None:
                    found[f"{prefix}.{name}"] = one
    return found


def allowed(one: Range | None, name: str, options: Options) -> Range | None:
    """A range without the values that these options refuse, such as those of an option that has no effect here."""
    given = {option: getattr(options, option) for option in options.model_fields_set}

    def takes(value: Any) -> bool:
        try:
            type(options).model_validate({**given, name: value})
        except ValidationError:
            return False
        return True

    if isinstance(one, Words):
        values = tuple(filter(takes, one.values))
        return Words(values) if len(values) > 1 else None
    return one if one is not None and takes(getattr(options, name)) else None


def option_range(field: FieldInfo) -> Range | None:
    """The range of one option; None if it is not searched.

    Raises:
        ValueError: the card states a range that is none.
    """
    plain, bounds = list(_plain(field.annotation)), _bounds(field)
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "search" in extra:
        return _stated(extra["search"], integer=plain == [int], numeric=bool({int, float} & set(plain)))
    default = field.get_default(call_default_factory=True)
    if is_path(field) or field.is_required() or default is None or len(plain) != 1:
        return None
    [kind] = plain
    if kind is bool:
        return Words((False, True))
    if get_origin(kind) is Literal:
        return Words(get_args(kind)) if len(get_args(kind)) > 1 else None
    if kind is int:
        return _whole(int(default), bounds)
    return _number(float(default), bounds) if kind is float else None


def _stated(search: Any, *, integer: bool, numeric: bool) -> Range | None:
    if not search:
        return None
    if not numeric:
        return Words(tuple(search))
    low, high = search
    if not low < high:
        raise ValueError(f"a search range goes from a smaller to a larger number, this is {search}")
    return stated_scale(low, high, integer=integer)


def stated_scale(low: float, high: float, *, integer: bool = False) -> Scale:
    """A stated range: logarithmic from a decade on, if it is positive and of no whole numbers."""
    return Scale(low, high, log=not integer and 0 < DECADE * low <= high, integer=integer)


def _number(default: float, bounds: _Bounds) -> Range | None:
    low, high = bounds.low, bounds.high
    if isfinite(low) and isfinite(high) and (default <= 0 or default >= high / DECADE):
        margin = _MARGIN * (high - low)
        return Scale(low + margin * bounds.above, high - margin * bounds.below)
    if default <= 0:
        return None
    lowest, highest = default / DECADE, default * DECADE
    if low >= lowest:
        lowest = low + bounds.above * _MARGIN * (default - low)
    if high <= highest:
        highest = high - bounds.below * _MARGIN * (high - default)
    return Scale(lowest, highest, log=True)


def _whole(default: int, bounds: _Bounds) -> Range | None:
    if default <= 0:
        return None
    low = max(default // _FACTOR, 1, bounds.low + bounds.above)
    high = min(_FACTOR * default, bounds.high - bounds.below)
    return Scale(low, high, integer=True) if low < high else None


def _bounds(field: FieldInfo) -> _Bounds:
    found = {
        name: getattr(item, name)
        for item in field.metadata
        for name in ("gt", "ge", "lt", "le")
        if getattr(item, name, None) is not None
    }
    low, high = found.get("gt", found.get("ge", -inf)), found.get("lt", found.get("le", inf))
    return _Bounds(low, high, above="gt" in found, below="lt" in found)


def _plain(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without None."""
    if get_origin(annotation) is Annotated:
        yield from _plain(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        yield from (inner for part in get_args(annotation) if part is not type(None) for inner in _plain(part))
    else:
        yield annotation
