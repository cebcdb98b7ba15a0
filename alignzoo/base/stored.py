"""Files that alignzoo wrote and reads back, verified by a digest so that corruption is detected and reported.

Digests are xxh3, which keeps up with the disk: they detect damage, not an adversary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import xxhash
from pydantic import TypeAdapter, ValidationError

from alignzoo.errors import DamagedError

Content = TypeVar("Content")
DIGEST = "digest"
_BLOCK = 1 << 20


def file_digest(path: Path) -> str:
    """The digest of a file's bytes, 32 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    content = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_BLOCK))
        while size := file.readinto(buffer):
            content.update(buffer[:size])
    return content.hexdigest()


def bytes_digest(content: bytes) -> str:
    """The digest of a file with these bytes."""
    return xxhash.xxh3_128_hexdigest(content)


def value_digest(value: Any) -> str:
    """The digest of a JSON-able value, the same before it is written and after it is read."""
    as_read = json.loads(json.dumps(value))
    return bytes_digest(json.dumps(as_read, sort_keys=True).encode())


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its digest as the last entry."""
    return {**content, DIGEST: value_digest(content)}


def unsealed(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What :func:`sealed` was given.

    Raises:
        DamagedError: the content is not what was written to ``path``.
    """
    plain = {name: value for name, value in content.items() if name != DIGEST}
    if DIGEST not in content:
        raise DamagedError(path, "it has no digest")
    try:
        same = content[DIGEST] == value_digest(plain)
    except (TypeError, ValueError, RecursionError) as error:  # YAML has values that JSON cannot represent
        raise DamagedError(path, str(error)) from error
    if not same:
        raise DamagedError(path, "its content is not what was written")
    return plain


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DamagedError: it cannot be read, or contains something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, str(error)) from error
    if not isinstance(content, dict):
        raise DamagedError(path, "it is not a JSON object")
    return content


def read_sealed(path: Path) -> dict[str, Any]:
    """The JSON object in a file that was :func:`sealed`, without its digest.

    Raises:
        DamagedError: it cannot be read, or is not what was written.
    """
    return unsealed(read_object(path), path)


def read_as(path: Path, kind: type[Content]) -> Content:
    """The sealed JSON object in a file as a value of a type.

    Raises:
        DamagedError: it cannot be read, is not what was written, or has another shape.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(read_sealed(path)), strict=True)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        where = ".".join(map(str, first["loc"]))
        raise DamagedError(path, f"{where}: {first['msg']}") from error
