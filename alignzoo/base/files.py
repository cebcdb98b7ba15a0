"""Files and folders that are whole or not there. Nothing is written through a link that lies in their place: a run
folder may come from a stranger."""

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
"""In unfinished work, and followed by its name: the folder that was about to be replaced."""
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
    """A new folder inside ``folder`` (which is made if need be) for one piece of work, removed when it is done.

    Its name says whose it is: :func:`clear_leftovers` removes those of processes that were killed.

    Raises:
        OSError: it cannot be made.
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
def whole(target: Path) -> Iterator[Path]:
    """Where to write a file or a folder that then takes the place of ``target``, safe from a loss of power.

    What was there before stays until then, and for good if the body fails.

    Raises:
        OSError: it cannot be written, or the folder it belongs in is not there.
    """
    with _beside(target.parent) as beside:
        path = beside / target.name
        yield path
        for written in [*path.rglob("*"), path]:
            _flush(written)
        if path.is_dir() and os.path.lexists(target):
            target.rename(beside / f"{_BEFORE}{target.name}")  # a folder takes the place of an empty one only
        path.replace(target)
    _flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
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
    """Refuse a folder of which a part is a link to somewhere else: what is written there would land outside.

    Args:
        files: those of the folder that must be regular files, if they are there: a pipe would be waited for.

    Raises:
        AlignzooError: names the part.
    """
    for path in (folder / name for name in files):
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            kind = "a link" if path.is_symlink() else "not a regular file"
            raise AlignzooError(
                f"{path} is {kind}, and a run reads and writes only files of its own",
                hint="put a real file in its place, or delete it",
            )
    home = folder.resolve()
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise AlignzooError(
                    f"{path} is a link to {path.resolve()}, and a run writes only inside its own folder",
                    hint="put a real folder in its place",
                )


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder and in the folders inside it; what they were about to
    replace is put back."""
    for path in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f"*/{PARTIAL}*")]:
        owner = Owner.parse(path.name.removeprefix(PARTIAL).rpartition(".")[0])
        if (not owner.runs()) if owner is not None and owner.is_here else _is_abandoned(path):
            _discard(path)


def _discard(made: Path) -> None:
    """Remove unfinished work; what it had moved away and not yet replaced goes back to its place."""
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
