"""The folder of an evaluation, which one process at a time writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignzoo.base.disk import stating
from alignzoo.base.files import clear_leftovers
from alignzoo.base.lock import lock, unlock
from alignzoo.report import Reporter


@contextmanager
def held(folder: Path, report: Reporter) -> Iterator[None]:
    """Create a folder if there is none, and keep other processes out of it.

    Raises:
        UsageError: another process uses it.
        AlignzooError: it cannot be written.
    """
    with stating(f"--out {folder}", "choose a folder in a writable place"):
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder, report)
    try:
        clear_leftovers(folder)
        yield
    finally:
        unlock(folder)
