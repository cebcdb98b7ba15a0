"""Values to try for an option, from its type, bounds and examples."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from alignzoo.contract.card import Options

_UNIONS = (Union, types.UnionType)


def candidates(field: FieldInfo) -> list[Any]:
    """Values that an option may take, the author's ``examples`` first; some may be refused by a validator."""
    found = [*(field.examples or ()), *_of_type(field.annotation, _Bounds.of(field.metadata), field.default)]
    return _distinct(found)


def choices(field: FieldInfo) -> list[Any]:
    """All values of an option that has only a few (Literal, bool, Enum, and whether an optional one is given)."""
    arms = _arms(field.annotation)
    found = [value for arm in arms for value in _listed(arm)]
    if type(None) in arms:
        found += [value for value in candidates(field) if value is None or value not in found][:2]
    return _distinct(found)


def least(field: FieldInfo) -> list[int]:
    """The least value of a whole-number option that has a lower bound: counts and intervals at their shortest."""
    low = _Bounds.of(field.metadata).low_int()
    return [low] if field.annotation is int and low is not None else []


def validated(model: type[Options], values: dict[str, Any]) -> Options | None:
    """Options with these values, None where they are refused."""
    try:
        return model.model_validate(values)
    except ValidationError:
        return None


def only_costs(field: FieldInfo) -> bool:
    """Whether an option says that it changes what a result costs, and not the result."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("cost"))


class _Bounds:
    """Bounds of a number as pydantic's constraints state them."""

    def __init__(self, marks: Iterable[Any]) -> None:
        self._stated: dict[str, Any] = {}
        for mark in marks:
            for name in ("ge", "gt", "le", "lt", "multiple_of"):
                if getattr(mark, name, None) is not None:
                    self._stated[name] = getattr(mark, name)

    @classmethod
    def of(cls, metadata: Iterable[Any]) -> _Bounds:
        return cls(metadata)

    def low_int(self) -> int | None:
        if "ge" in self._stated:
            return int(self._stated["ge"])
        return int(self._stated["gt"]) + 1 if "gt" in self._stated else None

    def high_int(self) -> int | None:
        if "le" in self._stated:
            return int(self._stated["le"])
        return int(self._stated["lt"]) - 1 if "lt" in self._stated else None

    @property
    def low(self) -> float | None:
        return self._stated.get("ge", self._stated.get("gt"))

    @property
    def high(self) -> float | None:
        return self._stated.get("le", self._stated.get("lt"))

    def hold(self, value: float) -> bool:
        s = self._stated
        return (
            value >= s.get("ge", value)
            and value <= s.get("le", value)
            and not ("gt" in s and value <= s["gt"])
            and not ("lt" in s and value >= s["lt"])
            and not ("multiple_of" in s and value % s["multiple_of"])
        )


def _of_type(annotation: Any, bounds: _Bounds, default: Any) -> list[Any]:
    found: list[Any] = []
    for arm in _arms(annotation):
        if get_origin(arm) is Annotated:
            base, *marks = get_args(arm)
            found += _of_type(base, _Bounds(marks), default)
        elif arm is int:
            found += _whole(bounds, default)
        elif arm is float:
            found += _real(bounds, default)
        elif arm in (str, Path):
            found.append(arm("other"))
        else:
            found += _listed(arm)
    return found


def _arms(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)


def _listed(arm: Any) -> list[Any]:
    if arm is bool:
        return [True, False]
    if get_origin(arm) is Literal:
        return list(get_args(arm))
    if isinstance(arm, type) and issubclass(arm, enum.Enum):
        return list(arm)
    return [None] if arm is type(None) else []


def _whole(bounds: _Bounds, default: Any) -> list[int]:
    low, high = bounds.low_int(), bounds.high_int()
    step = int(bounds._stated.get("multiple_of", 1))
    found: list[int] = [low, low + step, low + 2 * step] if low is not None else []
    if isinstance(default, int):
        found += [default + step, default - step, 2 * default]
    found += [high, high - step] if high is not None else []
    return [value for value in [*found, 1, 2, 3, 5, 0, 10, -1] if bounds.hold(value)]


def _real(bounds: _Bounds, default: Any) -> list[float]:
    low, high = bounds.low, bounds.high
    found: list[float] = []
    if isinstance(default, (int, float)):
        found += [2.0 * default, 0.5 * default, 10.0 * default, 0.1 * default, default + 0.1, default - 0.1]
    if low is not None and high is not None:
        found += [low + share * (high - low) for share in (0.5, 0.25, 0.75, 0.1, 0.9)]
    found += [float(bound) for bound in (low, high) if bound is not None]
    found += [low + 1.0] if low is not None else []
    found += [high - 1.0] if high is not None else []
    return [value for value in [*found, 0.5, 1.0, 0.1, 2.0, 5.0, 0.0, -1.0] if bounds.hold(value)]


def _distinct(values: Iterable[Any]) -> list[Any]:
    """In order, once each; ``True`` is not ``1``."""
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in found):
            found.append(value)
    return found
