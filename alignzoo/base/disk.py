"""Refusals of the file system in words: a full disk, a place that cannot be written, a folder that has gone."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignzoo.base.cache import cache_root
from alignzoo.errors import AlignzooError, UsageError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENODEV)


@contextmanager
def stating(what: Path | str, hint: str) -> Iterator[None]:
    """A refusal of the file system in words."""
    try:
        yield
    except OSError as error:
        message = f"{what} cannot be written: {error.strerror}"
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(message, hint="use a shorter name") from error
        raise AlignzooError(message, hint=f"free some space, or {hint}" if is_disk_full(error) else hint) from error


def is_disk_full(error: Exception) -> bool:
    """No space left, over quota, or over the largest file allowed."""
    return _number(error) in _DISK_FULL


def remedy(error: Exception) -> str:
    """What to do about a file that could not be written, as the beginning of a sentence."""
    return "free some space" if is_disk_full(error) else "repair that"


def check_there(folder: Path) -> None:
    """After a failure to write.

    Raises:
        AlignzooError: the run folder is not there any more.
    """
    if not folder.is_dir():
        raise AlignzooError(f"{folder} was deleted or moved while the run was writing there", hint="run it again")


def file_problem(error: Exception, folder: Path, again: str) -> AlignzooError | None:
    """What to say of a refusal of the file system in the middle of a run; None for an error of another kind.

    Args:
        folder: the run's.
        again: how the run is continued or started again, as words of a sentence.

    Raises:
        AlignzooError: the run folder is not there any more.
    """
    number, place = _number(error), getattr(error, "filename", None) or folder
    if number is not None:
        check_there(folder)
    if number in (*_DISK_FULL, *_REFUSED):
        return AlignzooError(f"cannot write {place}: {error}", hint=f"{remedy(error)} and {again}")
    if number == errno.ENOENT and any(Path(str(place)).is_relative_to(cache) for cache in _caches()):
        return AlignzooError(f"{place} was deleted while the run was using it", hint=again)
    return None


def _number(error: Exception) -> int | None:
    """The number of a system's error; safetensors and tokenizers give it in their text only, torch not at all."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError) and "inline_container" in str(error):  # it could not write a file to its end
        return errno.ENOSPC
    match = re.search(r"\(os error (\d+)\)", str(error))
    return None if match is None else int(match[1])


def _caches() -> list[Path]:
    import datasets

    return [cache_root(), Path(datasets.config.HF_DATASETS_CACHE)]
