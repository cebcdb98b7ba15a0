"""Scans a file before a reader loads it: a corrupt, oversized or hostile file is rejected.

The JSON readers keep several copies of a whole line (or array) in memory, and their parser recurses once per level of
nesting until the process dies. Each state of a file is scanned once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from alignzoo.data.compression import archive, compression, open_bytes, readable
from alignzoo.data.content import remember, remembered, settled
from alignzoo.errors import DataError

MAX_LINE = 32 * 2**20
"""Maximum bytes of one line of JSON lines or CSV."""
MAX_ARRAY = 512 * 2**20
"""Maximum bytes of a file that is one JSON array: its reader loads it whole."""
MAX_NESTING = 60
"""Maximum nesting of lists and objects in one row; from 64 on Arrow fails without naming the row."""
MAX_EXPANSION = 200
"""Maximum expansion of a gzip file that unpacks to more than ``MAX_ARRAY``; text reaches 3 to 20 times its size."""
_BLOCK = 2**20
_BLANK = b" \t\r\n\xef\xbb\xbf"  # including a byte order mark
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def look_through(path: Path, reader: str) -> None:
    """Reject a file that would crash its reader.

    Args:
        reader: ``json``, ``csv`` or ``parquet`` (which is bounded by its own format).

    Raises:
        DataError: names the file and, if applicable, the line.
    """
    what = f"bounds {MAX_LINE} {MAX_ARRAY} {MAX_NESTING} {MAX_EXPANSION}"
    if remembered(what, [path]) is not None:
        return
    with readable(path):
        _check_compression(path, reader)
        if reader == "json" and _first_byte(path) == b"[":
            _check_array(path)
        elif reader != "parquet":
            for number, line in enumerate(_lines(path), start=1):
                if reader == "json":
                    _check_nesting(line, f"{path}:{number}")
    if settled([path]):
        remember(what, [path], "within")


def _check_compression(path: Path, reader: str) -> None:
    kind = compression(path)
    if kind == "gzip":
        _check_expansion(path)
    if kind in ("gzip", None):
        kind = archive(path)
    if kind is not None:
        raise DataError(
            f"{path}: its content looks like {kind}, not {reader}",
            hint="unpack it; gzip is the only compression that is read directly",
        )


def _first_byte(path: Path) -> bytes:
    """The first byte that is not white space."""
    with open_bytes(path) as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        return next((text[:1] for block in blocks if (text := block.lstrip(_BLANK))), b"")


def _check_array(path: Path) -> None:
    with open_bytes(path) as file:
        content = file.read(MAX_ARRAY + 1)
    if len(content) > MAX_ARRAY:
        raise DataError(
            f"{path}: one JSON array of more than {MAX_ARRAY >> 20} MiB", hint="convert it to JSON lines (.jsonl)"
        )
    _check_nesting(content, str(path))


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines; raises ``DataError`` at one that is too long."""
    with open_bytes(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            if len(line) > MAX_LINE:
                raise DataError(
                    f"{path}:{number}: a line of more than {MAX_LINE >> 20} MiB",
                    hint="put each row on its own line, and remove this one if it is corrupt",
                )
            yield line


def _check_expansion(path: Path) -> None:
    most = max(path.stat().st_size * MAX_EXPANSION, MAX_ARRAY)
    with open_bytes(path) as file:
        while file.tell() <= most:
            if not file.read(_BLOCK):
                return
    raise DataError(f"{path}: unpacks to more than {MAX_EXPANSION} times its size", hint="unpack and check it")


def _check_nesting(content: bytes, place: str) -> None:
    if content.count(b"[") + content.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    for token in _JSON_TOKEN.finditer(content):
        start = content[token.start()]
        if start in b"[{":
            depth += 1
        elif start in b"]}":
            depth -= 1
        if depth > MAX_NESTING:
            raise DataError(f"{place}: lists or objects nested more than {MAX_NESTING} deep", hint="remove the row")
