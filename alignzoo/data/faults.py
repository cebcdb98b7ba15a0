"""Finding the exact line of a file that could not be read; the readers only say that something is wrong."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

from alignzoo.data.fields import kind_of
from alignzoo.errors import DataError


def find_fault(path: Path, reader: str, cause: BaseException) -> None:
    """Raise a ``DataError`` that names the line at fault; return if none is found.

    Args:
        path: the file.
        reader: ``json``, ``csv`` or ``parquet``.
        cause: what the reader raised; a csv reader names the line itself.
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
    """The file's text. Raises ``DataError`` for damaged compression and for bytes that are no UTF-8."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {raw[error.start]:#04x})") from error


def _scan_array(path: Path, content: str) -> None:
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from error
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {index} (counted from 0): is {kind_of(row)}, expected an object")


def _scan_lines(path: Path, content: str) -> None:
    first_seen: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error.msg} (column {error.colno})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: is {kind_of(row)}, expected an object with named fields")
        _compare_kinds(path, number, row, first_seen)


def _compare_kinds(path: Path, number: int, row: dict[str, Any], first_seen: dict[str, tuple[str, int]]) -> None:
    for field, value in row.items():
        if value is None:
            continue
        kind, line = first_seen.setdefault(field, (kind_of(value), number))
        if kind != kind_of(value):
            raise DataError(f"{path}:{number}: field {field!r} is {kind_of(value)}, in line {line} it is {kind}")
