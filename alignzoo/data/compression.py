"""How a data file is compressed, told by its content as ``datasets`` tells it: a name may say something else."""

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
    """How the file is compressed; None where its first bytes do not say."""
    with path.open("rb") as file:
        head = file.read(8)
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    return found or ("gzip" if path.suffix.lower() == ".gz" else None)  # damage in the head hides what it was


def archive(path: Path) -> str | None:
    """The kind of archive that ``datasets`` takes the file for, through gzip as well; None for no archive.

    It may unpack the start of the file, so the file's expansion is checked before.
    """
    from datasets.utils.extract import Extractor

    found: str | None = Extractor.infer_extractor_format(str(path))
    return None if found == "gzip" else found


def open_bytes(path: Path) -> gzip.GzipFile:
    """The file's bytes, unpacked if it is a gzip file."""
    return gzip.open(path, "rb") if compression(path) == "gzip" else path.open("rb")  # type: ignore[return-value]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around reading a file: one that is damaged or cannot be read is a ``DataError``."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        plain = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
        what = "cannot be read" if plain else "not a whole gzip file"
        raise DataError(f"{path}: {what}: {error}", hint="fetch or write the file again") from error
