"""Reads the rows of local files, each with its place for messages: csv, tsv, jsonl, json (also in gzip) and parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignzoo.data.compression import open_bytes, readable
from alignzoo.data.fields import kind_of
from alignzoo.errors import DataError

Row = Mapping[str, Any]
_LONGEST_FIELD = 10_000_000
"""Characters of a csv field; Python's own limit is too low for transcripts."""


def file_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """``(place, row)`` of every row; a place is ``file:line`` or ``file, row N``.

    Raises:
        DataError: unknown type, unreadable, or malformed: names file, line and column.
    """
    suffix = _suffix(path)
    if suffix not in _READERS:
        raise DataError(
            f"{path}: unsupported file type", hint=f"supported: {', '.join(_READERS)}, and .gz of the texts"
        )
    yield from _READERS[suffix](path)


def stem(path: Path) -> str:
    """The name of a file without the suffix of its type."""
    name = path.name.removesuffix(".gz").removesuffix(".GZ")
    return name.rpartition(".")[0] or name


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _text(path: Path) -> str:
    with readable(path), open_bytes(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {raw[error.start]:#04x})") from error


def _delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
        if not header:
            raise DataError(f"{path}: the file is empty", hint="its first line must name the columns")
        begin = rows.line_num + 1
        for row in rows:
            place, begin = f"{path}:{begin}", rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{place}: {len(row)} fields, expected {len(header)} ({', '.join(header)})",
                    hint="a field with a separator, a quote or a line break must be in double quotes",
                )
            yield place, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: malformed csv: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _object(_parsed(line, path, number), f"{path}:{number}")


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    """A list of objects; lines of objects under the name of a JSON file are read as such."""
    text = _text(path)
    if text.lstrip().startswith("{"):
        yield from _json_lines(path)
        return
    rows = _parsed(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path}: is {kind_of(rows)}, expected a list of objects")
    for number, row in enumerate(rows):
        place = f"{path}, row {number} (counted from 0)"
        yield place, _object(row, place)


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    try:
        rows = parquet.read_table(path).to_pylist()
    except Exception as error:
        raise DataError(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}") from error
    for number, row in enumerate(rows):
        yield f"{path}, row {number} (counted from 0)", row


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        raise DataError(f"{path}:{at}: not valid JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: not valid JSON: {error}") from error


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: is {kind_of(row)}, expected an object with named fields")
    return row


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".csv": lambda path: _delimited(path, ","),
    ".tsv": lambda path: _delimited(path, "\t"),
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
