"""What one process at a time writes to: the folder of an evaluation, or a file of responses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignzoo.base.disk import stating
from alignzoo.base.files import clear_leftovers
from alignzoo.base.lock import lock, unlock
from alignzoo.report import Reporter


@contextmanager
def held(folder: Path, report: Reporter, file: str | None = None) -> Iterator[None]:
    """Create a folder if there is none, and keep other processes out of it, or off one file in it.

    Raises:
        UsageError: another process uses it.
        AlignzooError: it cannot be written.
    """
    with stating(f"--out {folder if file is None else folder / file}", "choose a folder in a writable place"):
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder, report, file)
    try:
        clear_leftovers(folder)
        yield
    finally:
        unlock(folder, file)
