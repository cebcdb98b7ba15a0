"""Reads typed fields of a row; every problem is a ``FieldError`` that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alignzoo.data.rows import FieldError, Message

Row = Mapping[str, Any]

_KINDS = {
    "str": "text",
    "bool": "true/false",
    "int": "a number",
    "float": "a number",
    "list": "a list",
    "dict": "an object",
}


def kind_of(value: Any) -> str:
    """A value's type in plain words."""
    name = type(value).__name__
    return "empty" if value is None else _KINDS.get(name, name)


def required(row: Row, field: str) -> Any:
    """The field's value; raises ``FieldError`` if the row lacks it."""
    value = row.get(field)
    if value is None:
        raise FieldError(field, "is missing or null")
    return value


def text(row: Row, field: str) -> str:
    """The field as a string."""
    value = required(row, field)
    if not isinstance(value, str):
        raise FieldError(field, f"is {kind_of(value)}, expected text")
    return _unicode(value, field)


def _unicode(value: str, field: str) -> str:
    """The text, if a tokenizer accepts it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(field, "contains half of a surrogate pair, which is not valid Unicode") from None
    return value


def flag(row: Row, field: str) -> bool:
    """The field as a bool."""
    value = required(row, field)
    if not isinstance(value, bool):
        raise FieldError(field, f"is {kind_of(value)}, expected true/false")
    return value


def number(row: Row, field: str) -> float:
    """The field as a finite float."""
    value = required(row, field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(field, f"is {kind_of(value)}, expected a finite number")
    try:
        found = float(value)
    except OverflowError:  # an integer of more than 308 digits
        found = math.inf
    if not math.isfinite(found):
        raise FieldError(field, f"is {found}, expected a finite number")
    return found


def flags(row: Row, field: str) -> list[bool]:
    """The field as a list of bools."""
    return [flag({at: value}, at) for at, value in _entries(row, field)]


def numbers(row: Row, field: str) -> list[float]:
    """The field as a list of finite floats."""
    return [number({at: value}, at) for at, value in _entries(row, field)]


def _entries(row: Row, field: str) -> list[tuple[str, Any]]:
    """The items of a list, each with its name for messages."""
    value = required(row, field)
    if not isinstance(value, list):
        raise FieldError(field, f"is {kind_of(value)}, expected a list")
    return [(f"{field}[{index}]", entry) for index, entry in enumerate(value)]


def label(row: Row, field: str) -> str:
    """The field as a string; integers and booleans are accepted as names."""
    value = required(row, field)
    if not isinstance(value, str | int):
        raise FieldError(field, f"is {kind_of(value)}, expected text")
    return str(value)


def choice(row: Row, field: str) -> int:
    """The field as the index of one of two responses."""
    value = required(row, field)
    if isinstance(value, bool) or value not in (0, 1):
        raise FieldError(field, f"is {str(value)[:40]!r}, expected 0 or 1")
    return int(value)


_LABELS = {"true": True, "false": False, "chosen": True, "rejected": False, "desirable": True, "undesirable": False}


def desirable(row: Row, field: str) -> bool:
    """The field as the label of a response: true/false, 1/0, 1/-1, chosen/rejected or desirable/undesirable."""
    value = required(row, field)
    if isinstance(value, str) and value.lower() in _LABELS:
        return _LABELS[value.lower()]
    if isinstance(value, int) and value in (-1, 0, 1):
        return value == 1
    raise FieldError(field, f"is {repr(value)[:40]}, expected true or false (or 1/0, 1/-1, or chosen/rejected)")


def texts(row: Row, field: str) -> list[str]:
    """The field as a list of strings."""
    return [text({at: value}, at) for at, value in _entries(row, field)]


def conversations(row: Row, field: str) -> list[list[Message]]:
    """The field as a list of lists of chat messages."""
    return [messages({at: value}, at) for at, value in _entries(row, field)]


def messages(row: Row, field: str) -> list[Message]:
    """The field as chat messages, without a message's empty keys (which Arrow fills in)."""
    value = required(row, field)
    if not isinstance(value, list):
        raise FieldError(field, f"is {kind_of(value)}, expected a list of chat messages")
    return [_message(entry, f"{field}[{index}]") for index, entry in enumerate(value)]


def _message(entry: Any, field: str) -> Message:
    if not isinstance(entry, dict):
        raise FieldError(field, f"is {kind_of(entry)}, expected a chat message with role and content")
    for key in ("role", "content"):
        if not isinstance(entry.get(key), str):
            found = "is missing or null" if entry.get(key) is None else f"is {kind_of(entry[key])}, expected text"
            raise FieldError(f"{field}.{key}", found)
        _unicode(entry[key], f"{field}.{key}")
    return {key: value for key, value in entry.items() if value is not None}
