"""The base of all that a user sets, settings and methods' options alike: frozen, without surplus words, strict about
numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

LARGEST = 2**63 - 1
"""What an integer may be, as everywhere behind it (torch, numpy, files) takes 64 bits."""


class Values(BaseModel):
    """Unknown names are errors; numbers are finite, unless a field says ``allow_inf_nan=True``, and yes and no are no
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
    """The plain types that an annotation names, inside of unions and lists too."""
    inner = get_args(annotation)
    yield from (one for part in inner for one in _types(part)) if inner else (annotation,)
