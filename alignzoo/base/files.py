"""Atomic writes of files and folders. Nothing is written through a link in their place: a run folder may come from an
untrusted source."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignzoo.base.owner import Owner
from alignzoo.errors import AlignzooError, UsageError

PARTIAL = ".partial-"
_BEFORE = ".before-"
"""Inside unfinished work, and followed by its name: the folder that was about to be replaced."""
_ABANDONED = 24 * 3600
"""Seconds without a change after which another machine's unfinished work counts as abandoned."""


def local_path(name: str | Path) -> Path:
    """A path that a user typed, with a leading ``~`` or ``~user`` replaced.

    Raises:
        UsageError: there is no such user, or the user has no home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name}: there is no such home folder", hint="write the whole path") from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder`` (created if needed) for temporary work, removed afterwards.

    Its name records the owning process, so that :func:`clear_leftovers` can remove those of killed processes.

    Raises:
        OSError: it cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as made:
        yield made


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{Owner.this().token}.", dir=folder))
    try:
        yield made
    finally:
        _discard(made)


@contextmanager
def whole(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a path to write a file or folder to, which then atomically replaces ``target``, safe against power loss
    unless it is not ``durable`` (what can be computed again).

    Until then, and if the body fails, the previous content stays.

    Raises:
        OSError: it cannot be written, or the parent folder does not exist.
    """
    with _beside(target.parent) as beside:
        path = beside / target.name
        yield path
        for written in [*path.rglob("*"), path] if durable else []:
            _flush(written)
        if path.is_dir() and os.path.lexists(target):
            target.rename(beside / f"{_BEFORE}{target.name}")  # a folder takes the place of an empty one only
        path.replace(target)
    if durable:
        _flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with whole(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_text(target, json.dumps(value, indent=2) + "\n")


def append_text(path: Path, text: str) -> None:
    """Append to a file.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    with open(path, "a", encoding="utf-8", opener=_opened_itself) as file:
        file.write(text)


def _opened_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def check_links(folder: Path, files: Iterable[str] = ()) -> None:
    """Refuse a folder that contains links to somewhere else: writes would land outside it.

    Args:
        files: names inside it that must be regular files if they exist: reading a pipe would block.

    Raises:
        AlignzooError: names the offending path.
    """
    for path in (folder / name for name in files):
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            kind = "a link" if path.is_symlink() else "not a regular file"
            raise AlignzooError(
                f"{path} is {kind}, and a run reads and writes only its own files",
                hint="replace it with a regular file, or delete it",
            )
    home = folder.resolve()
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise AlignzooError(
                    f"{path} is a link to {path.resolve()}, and a run writes only inside its own folder",
                    hint="replace it with a real folder",
                )


def clear_leftovers(folder: Path) -> None:
    """Remove unfinished work of killed processes from a folder and its direct subfolders, and restore what they were
    about to replace."""
    for path in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f"*/{PARTIAL}*")]:
        owner = Owner.parse(path.name.removeprefix(PARTIAL).rpartition(".")[0])
        if (not owner.runs()) if owner is not None and owner.is_here else _is_abandoned(path):
            _discard(path)


def _discard(made: Path) -> None:
    """Remove unfinished work, and restore what it had moved away but not yet replaced."""
    for before in made.glob(f"{_BEFORE}*"):
        target = made.parent / before.name.removeprefix(_BEFORE)
        if not os.path.lexists(target):
            with contextlib.suppress(OSError):
                before.rename(target)
    shutil.rmtree(made, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    try:
        latest = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:  # its owner is at work on it
        return False
    return time.time() - latest > _ABANDONED


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
