"""A folder for results: checked to be free, claimed by one process, restored if a start fails."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignzoo.base.disk import stating
from alignzoo.base.files import clear_leftovers
from alignzoo.base.lock import LOCK_FILE, check_unlocked, lock, unlock
from alignzoo.errors import UsageError
from alignzoo.plan.planfile import PLAN_FILE
from alignzoo.report import Reporter


@dataclass(frozen=True)
class Claim:
    """A folder that only this process writes to.

    Attributes:
        made: whether this process created it; otherwise it was empty or has a run to resume.
    """

    folder: Path
    made: bool

    def take(self, report: Reporter) -> None:
        """Prevent others from writing to it.

        Raises:
            UsageError: another process was faster.
            OSError: it cannot be written.
        """
        try:
            lock(self.folder, report)
        except BaseException:
            if self.made:
                with contextlib.suppress(OSError):  # it is the other process's now
                    self.folder.rmdir()
            raise

    def undo(self, written: Iterable[str]) -> None:
        """Remove the files this process may have written, by name, and the folder itself if it was created here."""
        for name in written:
            _remove(self.folder / name)
        self.release()
        if self.made:
            with contextlib.suppress(OSError):  # another process has claimed it since, or put something there
                self.folder.rmdir()

    def release(self) -> None:
        """Release it for others."""
        unlock(self.folder)


def claim_new(folder: Path, report: Reporter) -> Claim:
    """Create a folder, or claim an empty one.

    Raises:
        UsageError: it holds something, is a file, or another process uses it.
        AlignzooError: it cannot be written.
    """
    check_free(folder)
    with stating(f"--out {folder}", "choose a folder in a writable place"):
        try:
            folder.mkdir(parents=True)
            claim = Claim(folder, made=True)
        except FileExistsError:
            claim = Claim(folder, made=False)
        claim.take(report)
    try:
        check_free(folder, own=True)  # another run may have come and gone since
    except BaseException:
        claim.release()
        raise
    return claim


def claim_default(name: Path, report: Reporter) -> Claim:
    """Create the folder of a run without ``--out``; if the name is taken, a number is appended.

    Args:
        name: of the folder that is wanted.

    Raises:
        AlignzooError: it cannot be written.
    """
    with stating(name.parent, "choose another place with --out"):
        name.parent.mkdir(parents=True, exist_ok=True)
        for count in itertools.count(1):
            folder = name if count == 1 else name.with_name(f"{name.name}-{count}")
            with contextlib.suppress(FileExistsError, UsageError):  # made, or even locked, by another process
                folder.mkdir()
                claim = Claim(folder, made=True)
                claim.take(report)
                return claim
    raise AssertionError("there is always another number")


def claim_run(folder: Path, report: Reporter) -> Claim:
    """Claim the folder of a run to resume.

    Raises:
        UsageError: that run is running, or the folder's name is not UTF-8.
        AlignzooError: it cannot be written.
    """
    check_name(folder)
    claim = Claim(folder, made=False)
    with stating(folder, "make it writable, or copy it to a writable place"):
        claim.take(report)
    clear_leftovers(folder)
    return claim


@contextmanager
def new_folder(folder: Path, report: Reporter, written: Iterable[str]) -> Iterator[Path]:
    """A new folder for results; a failure restores the previous state.

    Args:
        written: names of the files that are made inside.

    Raises:
        UsageError, AlignzooError: as :func:`claim_new`.
    """
    claim = claim_new(folder, report)
    try:
        yield folder
    except BaseException:
        claim.undo(written)
        raise
    finally:
        claim.release()


def check_name(folder: Path) -> None:
    """Reject a name that model writers cannot handle, before anything is trained.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{str(folder)!r} is not UTF-8, so models cannot be saved there", hint="use a UTF-8 name"
        ) from error


def check_free(folder: Path, *, own: bool = False) -> None:
    """Reject a non-empty folder.

    Args:
        own: this process has its lock.

    Raises:
        UsageError: it does, it is a file, another process uses it, or its name is not UTF-8.
        AlignzooError: it cannot be looked into.
    """
    check_name(folder)
    with stating(f"--out {folder}", "choose a folder in a writable place"):
        if not folder.exists():
            return
        if folder.is_dir() and not own:
            check_unlocked(folder)
        if folder.is_dir() and all(entry.name == LOCK_FILE for entry in folder.iterdir()):
            return
        is_run = (folder / PLAN_FILE).is_file()
    raise UsageError(
        f"--out {folder} exists and is not empty",
        hint=f"choose another folder, or resume that run with --resume {folder}" if is_run else "choose another folder",
    )


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # it is not there, or the folder has become unwritable
            entry.unlink()
