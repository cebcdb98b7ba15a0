"""The base of all user-set values, settings and methods' options alike: frozen, no unknown names, strict
numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

LARGEST = 2**63 - 1
"""Largest integer: torch, numpy and files use 64 bits."""


class Values(BaseModel):
    """Unknown names are errors; numbers are finite unless a field sets ``allow_inf_nan=True``, and booleans are not
    numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _switches_are_no_numbers(cls, value: Any, field: ValidationInfo) -> Any:
        """pydantic would take True for 1."""
        types = set(_types(cls.model_fields[str(field.field_name)].annotation))
        if bool not in types and {int, float} & types and any(isinstance(one, bool) for one in _each(value)):
            raise ValueError("should be a number, not yes or no")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _integers_have_64_bits(cls, value: Any) -> Any:
        if any(isinstance(one, int) and abs(one) > LARGEST for one in _each(value)):
            raise ValueError(f"should be at most {LARGEST}")
        return value


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _types(annotation: Any) -> Iterator[Any]:
    """The plain types in an annotation, including those inside unions and lists."""
    inner = get_args(annotation)
    yield from (one for part in inner for one in _types(part)) if inner else (annotation,)
