"""Detects a file's compression from its content, like ``datasets`` does: its name may be misleading."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignzoo.errors import DataError

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def compression(path: Path) -> str | None:
    """The file's compression; None if its first bytes do not tell."""
    with path.open("rb") as file:
        head = file.read(8)
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    return found or ("gzip" if path.suffix.lower() == ".gz" else None)  # a corrupt header hides the format


def archive(path: Path) -> str | None:
    """The kind of archive that ``datasets`` takes the file for, also inside gzip; None if it is not an archive.

    It may unpack the start of the file, so check the file's expansion first.
    """
    from datasets.utils.extract import Extractor

    found: str | None = Extractor.infer_extractor_format(str(path))
    return None if found == "gzip" else found


def open_bytes(path: Path) -> gzip.GzipFile:
    """The file's bytes, decompressed if it is a gzip file."""
    return gzip.open(path, "rb") if compression(path) == "gzip" else path.open("rb")  # type: ignore[return-value]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Wraps reading a file: a corrupt or unreadable one raises ``DataError``."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        plain = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
        what = "cannot be read" if plain else "incomplete or corrupt gzip file"
        raise DataError(f"{path}: {what}: {error}", hint="download or write the file again") from error
