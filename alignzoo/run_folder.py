"""The run folder: found free, opened, left as it was by a start that failed; and what a full disk looks like."""

from __future__ import annotations

import errno
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from alignzoo.errors import AlignzooError, UsageError
from alignzoo.files import write_json
from alignzoo.plugin.plan import Plan
from alignzoo.plugin.planfile import PLAN_FILE, write_plan

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_folder(plan: Plan) -> str:
    """Where a run without ``--out`` goes: by its methods and the time."""
    names = "-".join(method.card.name for method in plan.methods)
    return f"runs/{names}-{datetime.now():%Y%m%d-%H%M%S}"


def open_folder(folder: Path, plan: Plan) -> None:
    """Make the run folder with its plan, so that a run that is killed from here on can be resumed.

    Raises:
        AlignzooError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_plan(plan, folder)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise AlignzooError(
            f"--out {folder} cannot be written: {error.strerror}", hint="name a folder in a place that you may write to"
        ) from error


def leave_as_it_was(folder: Path, existed: bool) -> None:
    """Undo a start that failed, so that the same command works once its mistake is repaired."""
    for entry in list(folder.iterdir()) if existed else [folder]:
        if entry.is_file():
            entry.unlink(missing_ok=True)
        else:
            shutil.rmtree(entry, ignore_errors=True)


def is_disk_full(error: Exception) -> bool:
    """No space left, over quota, or over the largest file allowed; safetensors gives the number in its text only."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    return isinstance(error, SafetensorError) and any(f"(os error {number})" in str(error) for number in _DISK_FULL)


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_run = (folder / PLAN_FILE).is_file()
        raise UsageError(
            f"--out {folder} exists and is not empty",
            hint=f"name another folder, or continue that run with --resume {folder}"
            if is_run
            else "name another folder",
        )


def write_once(path: Path, content: Any) -> None:
    """A fact of the run's start, which a resume does not change."""
    if not path.is_file():
        write_json(path, content)
