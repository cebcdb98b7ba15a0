"""Locates the line of a file that could not be read; the readers only say that something is wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from alignzoo.data.compression import open_bytes, readable
from alignzoo.data.fields import kind_of
from alignzoo.errors import DataError


def find_fault(path: Path, reader: str, cause: BaseException) -> None:
    """Raise a ``DataError`` that names the bad line; return if none is found.

    Args:
        path: the file.
        reader: ``json``, ``csv`` or ``parquet``.
        cause: the reader's exception; a csv reader names the line itself.
    """
    if reader == "csv":
        line = re.search(r"line (\d+)", str(cause))
        if line:
            raise DataError(f"{path}:{line[1]}: malformed csv: {str(cause).strip().splitlines()[-1]}") from cause
    if reader == "json":
        content = _content(path)
        if not content.strip():
            raise DataError(f"{path}: the file is empty")
        if content.lstrip().startswith("["):
            _scan_array(path, content)
        else:
            _scan_lines(path, content)


def _content(path: Path) -> str:
    """The file's text. Raises ``DataError`` for corrupt compression and for bytes that are not UTF-8."""
    with readable(path), open_bytes(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {raw[error.start]:#04x})") from error


def _scan_array(path: Path, content: str) -> None:
    for index, row in enumerate(_parsed(content, path, 1)):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {index} (counted from 0): is {kind_of(row)}, expected an object")
        _check_unicode(row, f"{path}, row {index} (counted from 0)")


def _parsed(text: str, path: Path, line: int) -> Any:
    """The JSON value of a text that starts on a line of the file."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        raise DataError(f"{path}:{at}: not valid JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # NaN, infinity, or a number of thousands of digits
        raise DataError(f"{path}:{line}: not valid JSON: {error}") from error


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"the number {number[:20]} is not finite")
    return float(number)


def _check_unicode(row: dict[str, Any], place: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: contains half of a surrogate pair, which is not valid Unicode") from error


def _scan_lines(path: Path, content: str) -> None:
    first_seen: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, path, number)
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: is {kind_of(row)}, expected an object with named fields")
        _check_unicode(row, f"{path}:{number}")
        _compare_kinds(path, number, row, first_seen)


def _compare_kinds(path: Path, number: int, row: dict[str, Any], first_seen: dict[str, tuple[str, int]]) -> None:
    for field, value in row.items():
        if value is None:
            continue
        kind, line = first_seen.setdefault(field, (kind_of(value), number))
        if kind != kind_of(value):
            raise DataError(f"{path}:{number}: field {field!r} is {kind_of(value)}, in line {line} it is {kind}")
