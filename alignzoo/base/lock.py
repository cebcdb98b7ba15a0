"""The lock of a folder that only one process at a time may write to: a file naming its owner, created exclusively."""

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


def lock(folder: Path, report: Reporter) -> None:
    """Take the lock of a folder, for this process.

    Raises:
        UsageError: another process has it.
        OSError: the folder cannot be written.
    """
    path = folder / LOCK_FILE
    with _one_after_another(folder):
        dead = check_unlocked(folder)
        if dead is not None:
            path.unlink()
            report.note(f"{folder}: process {dead.owner.pid} has ended without releasing its lock; taking it over")
        owner, now = Owner.this(), datetime.now().astimezone()
        facts = {"owner": owner.token, "pid": owner.pid, "machine": socket.gethostname(), "since": f"{now:%F %T %z}"}
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:  # another machine was faster
            check_unlocked(folder)
            raise
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(facts, file)
        except BaseException:
            path.unlink()
            raise


def unlock(folder: Path) -> None:
    """Release the lock, if this process has it."""
    with contextlib.suppress(OSError, ValueError):
        holder = _read(folder / LOCK_FILE)
        if holder is not None and holder.owner == Owner.this():
            (folder / LOCK_FILE).unlink()


def check_unlocked(folder: Path) -> Holder | None:
    """Refuse a folder that another process is using; returns the dead holder of a stale lock.

    Raises:
        UsageError: it is, or may be, in use.
        OSError: the lock cannot be read.
    """
    path = folder / LOCK_FILE
    try:
        holder = _read(path)
    except ValueError as error:
        raise UsageError(
            f"{path} does not say which process uses the folder", hint=f"delete {path} if none does"
        ) from error
    if holder is None or (holder.owner.is_here and not holder.owner.runs()):
        return holder
    pid = holder.owner.pid
    if not holder.owner.is_here:
        raise UsageError(
            f"{folder} is in use by process {pid} on {holder.machine}, since {holder.since}",
            hint=f"if that process has ended, delete {path}",
        )
    raise UsageError(
        f"{folder} is in use by process {pid}, since {holder.since}",
        hint=f"wait until it ends, or stop it: kill {pid}",
    )


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
