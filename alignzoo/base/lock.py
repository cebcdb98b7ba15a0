"""The lock of a folder, or of a file in it, that only one process at a time may write to: a file naming its owner,
created exclusively."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from alignzoo.base.owner import Owner
from alignzoo.errors import UsageError
from alignzoo.report import Reporter

LOCK_FILE = ".lock"
_LONGEST = 4096  # bytes: ours have 150


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: its owner, and machine and time in readable form."""

    owner: Owner
    machine: str
    since: str


def lock(folder: Path, report: Reporter, file: str | None = None) -> None:
    """Take the lock of a folder, or of one file in it, for this process.

    Raises:
        UsageError: another process has it.
        OSError: the folder cannot be written.
    """
    path = lock_path(folder, file)
    with _one_after_another(folder):
        dead = check_unlocked(folder, file)
        if dead is not None:
            path.unlink()
            locked = _locked(folder, file)
            report.note(f"{locked}: process {dead.owner.pid} has ended without releasing its lock; taking it over")
        owner, now = Owner.this(), datetime.now().astimezone()
        facts = {"owner": owner.token, "pid": owner.pid, "machine": socket.gethostname(), "since": f"{now:%F %T %z}"}
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:  # another machine was faster
            check_unlocked(folder, file)
            raise
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(facts, stream)
        except BaseException:
            path.unlink()
            raise


def unlock(folder: Path, file: str | None = None) -> None:
    """Release the lock, if this process has it."""
    path = lock_path(folder, file)
    with contextlib.suppress(OSError, ValueError):
        holder = _read(path)
        if holder is not None and holder.owner == Owner.this():
            path.unlink()


def is_locked(folder: Path, file: str | None = None) -> bool:
    """Whether a living process holds the lock of a folder, or of one file in it."""
    try:
        check_unlocked(folder, file)
    except UsageError:
        return True
    return False


def check_unlocked(folder: Path, file: str | None = None) -> Holder | None:
    """Refuse a folder, or a file in it, that another process is using; returns the dead holder of a stale lock.

    Raises:
        UsageError: it is, or may be, in use.
        OSError: the lock cannot be read.
    """
    path, locked = lock_path(folder, file), _locked(folder, file)
    try:
        holder = _read(path)
    except ValueError as error:
        raise UsageError(
            f"{path} does not say which process uses {locked}", hint=f"delete {path} if none does"
        ) from error
    if holder is None or (holder.owner.is_here and not holder.owner.runs()):
        return holder
    pid = holder.owner.pid
    if not holder.owner.is_here:
        raise UsageError(
            f"{locked} is in use by process {pid} on {holder.machine}, since {holder.since}",
            hint=f"if that process has ended, delete {path}",
        )
    raise UsageError(
        f"{locked} is in use by process {pid}, since {holder.since}",
        hint=f"wait until it ends, or stop it: kill {pid}",
    )


def lock_path(folder: Path, file: str | None = None) -> Path:
    """The file that the lock of a folder, or of one file in it, is."""
    return folder / (LOCK_FILE if file is None else f".{file}{LOCK_FILE}")


def _locked(folder: Path, file: str | None) -> Path:
    return folder if file is None else folder / file


def _read(path: Path) -> Holder | None:
    """Who holds a lock; None if there is none.

    Raises:
        ValueError: it was not written by alignzoo.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not block us
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise ValueError("a link") from error
        raise
    with os.fdopen(handle, "rb") as file:
        content = file.read(_LONGEST)
    facts = json.loads(content)
    owner = Owner.parse(str(facts.get("owner"))) if isinstance(facts, dict) else None
    if owner is None:
        raise ValueError("no owner")
    return Holder(owner, str(facts.get("machine")), str(facts.get("since")))


@contextlib.contextmanager
def _one_after_another(folder: Path) -> Iterator[None]:
    """Serialise processes of this machine between reading a stale lock and removing it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
