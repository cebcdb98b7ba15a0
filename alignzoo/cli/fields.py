"""The facts of a pydantic field for help and tables: type, choices, bounds, default."""

from __future__ import annotations

import enum
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_NAMES: dict[Any, str] = {int: "INT", float: "NUMBER", bool: "BOOL", str: "TEXT"}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class FieldFacts:
    """One option or setting.

    Attributes:
        type: ``INT``, ``NUMBER``, ``TEXT`` …, or the choices joined by ``|``.
        bounds: sign → limit, such as ``{">": 0}``.
    """

    name: str
    type: str
    choices: tuple[str, ...]
    bounds: dict[str, Any]
    default: Any
    help: str
    is_bool: bool
    required: bool

    def default_text(self) -> str:
        """The default as a user would type it; empty if there is none."""
        if self.default is None or self.default == ():
            return ""
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        if isinstance(self.default, (tuple, list)):
            return ",".join(str(item) for item in self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def bounds_text(self) -> str:
        return ", ".join(f"{sign} {limit:g}" for sign, limit in self.bounds.items())

    def full_help(self) -> str:
        """The help line, followed by default and bounds."""
        facts = [f"default: {self.default_text()}"] if self.default_text() else ["required"] if self.required else []
        if self.bounds:
            facts.append(self.bounds_text())
        return f"{self.help} [{'; '.join(facts)}]" if facts else self.help

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "choices": list(self.choices),
            "bounds": self.bounds,
            "default": self.default if isinstance(self.default, (int, float, str, type(None))) else list(self.default),
            "required": self.required,
            "help": self.help,
        }


def field_facts(name: str, info: FieldInfo) -> FieldFacts:
    """The facts of one field of a pydantic model."""
    plain, metadata = _flatten(info.annotation)
    choices = tuple(str(choice) for annotation in plain for choice in _choices(annotation))
    named = [_type_name(annotation) for annotation in plain if not _choices(annotation)]
    bounds = {
        sign: getattr(item, attribute)
        for item in [*info.metadata, *metadata]
        for attribute, sign in _BOUNDS.items()
        if getattr(item, attribute, None) is not None
    }
    return FieldFacts(
        name=name,
        type="|".join([*choices, *named]),
        choices=choices,
        bounds=bounds,
        default=info.get_default(call_default_factory=True) if not info.is_required() else None,
        help=info.description or "",
        is_bool=plain == [bool],
        required=info.is_required(),
    )


def _flatten(annotation: Any) -> tuple[list[Any], list[Any]]:
    """The alternatives of a type without ``None``, and the metadata of those that are annotated."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        plain, more = _flatten(inner)
        return plain, [*_unpacked(metadata), *more]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_flatten(part) for part in get_args(annotation) if part is not type(None)]
        return [item for plain, _ in parts for item in plain], [item for _, meta in parts for item in meta]
    return [annotation], []


def _unpacked(metadata: list[Any]) -> list[Any]:
    return [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    return ()


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) in (tuple, list, set, frozenset):
        return "LIST"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)).upper())
