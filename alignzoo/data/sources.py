"""Loads hub ids, local files and folders as memory-mapped ``datasets.Dataset`` rows."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import local_path
from alignzoo.base.hub import offline_hint
from alignzoo.base.suggest import nearest
from alignzoo.data.bounds import look_through
from alignzoo.data.compression import open_bytes
from alignzoo.data.content import loaded_digest
from alignzoo.data.digests import digest
from alignzoo.data.faults import find_fault
from alignzoo.data.quiet import quiet_datasets
from alignzoo.errors import AlignzooError, DataError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_READERS = {
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".json": "json",
    ".json.gz": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z]{2,8}$")
_SUPPORTED = f"{', '.join(_READERS)}, a folder of such files, or a folder written by save_to_disk"


def load_rows(source: str, *, split: str | None = None) -> Dataset:
    """The rows of ``source``, unchanged.

    Args:
        source: a hub id ``org/name`` or ``org/name:config``, a file, or a folder.
        split: the split; None takes the only one, or ``train``.

    Raises:
        DataError: not found, unreadable, malformed (names file and line), or no such split.
        AlignzooError: the cache of ``datasets`` is not writable.
    """
    splits = _load_path(local_path(source)) if is_path(source) else _load_hub(source, split)
    rows = _pick_split(splits, source, split)
    if len(rows) == 0:
        raise DataError(f"{source}: contains no rows")
    return rows


def is_path(source: str) -> bool:
    """Whether ``source`` means a local file or folder: it looks like one or exists as one."""
    looks = source.startswith(("/", "./", "../", "~")) or source.count("/") > 1 or _FILE_SUFFIX.search(source)
    return bool(looks) or Path(source).exists() or not _HUB_ID.fullmatch(source)


def check_path(path: Path) -> None:
    """Check that a file or folder can contain rows, without reading any.

    Raises:
        DataError: it does not exist, or its kind is unknown.
    """
    _data_files(path)


def locate(source: str | None, rows: Sequence[int]) -> list[str]:
    """Locations of rows (numbered from 0) of ``source`` for error messages: ``file:line`` if each line is a row."""
    path = local_path(source) if source is not None else None
    if path is None or _suffix(path) not in (".jsonl", ".jsonl.gz") or not path.is_file():
        name = "" if source is None else f"{source}, "
        return [f"{name}row {row} (counted from 0)" for row in rows]
    with open_bytes(path) as lines:
        # Blank lines are not rows, so line numbers must be counted.
        filled = (number for number, line in enumerate(lines, start=1) if line.strip())
        at = dict(zip(range(max(rows, default=-1) + 1), filled, strict=False))
    return [f"{source}:{at.get(row, row + 1)}" for row in rows]


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in sorted(_READERS, key=len, reverse=True) if name.endswith(suffix)), "")


def _load_path(path: Path) -> DatasetDict:
    files = _data_files(path)
    return _read(path, files) if files else _load_saved(path)


def _data_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder; none if ``save_to_disk`` wrote it."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", hint=_near(path))
    if path.is_file():
        if not _suffix(path):
            raise DataError(f"{path}: unsupported file type", hint=f"supported: {_SUPPORTED}")
        return [path]
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return []
    files = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file))
    readers = {_READERS[_suffix(file)] for file in files}
    if len(readers) != 1:
        found = f"files of several kinds ({', '.join(sorted(readers))})" if readers else "no data files"
        raise DataError(f"{path}: contains {found}", hint=f"name one file; supported: {_SUPPORTED}")
    return files


def _near(path: Path) -> str | None:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = nearest(path.name, names)
    if close:
        return f"did you mean {' or '.join(str(path.parent / name) for name in close)}?"
    return None if path.parent.is_dir() else f"the folder {path.parent} does not exist either"


def _load_saved(path: Path) -> DatasetDict:
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path}: this saved dataset cannot be read: {_first_line(error)}") from error
    return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict({"train": saved})


def _read(path: Path, files: list[Path]) -> DatasetDict:
    """Read one file, or a folder whose splits ``datasets`` infers from file names."""
    import datasets

    reader = _READERS[_suffix(files[0])]
    # A response that says "None" or "NA" is text, not a missing value.
    options: dict[str, Any] = {"keep_default_na": False} if reader == "csv" else {}
    # `datasets` caches the unpacked content of an earlier state under the same path.
    options["download_config"] = datasets.DownloadConfig(force_extract=True)
    for file in files:
        look_through(file, reader)
    try:
        with quiet_datasets():
            if path.is_file():
                splits = datasets.load_dataset(reader, _state(path), data_files=str(path), **options)
            else:
                splits = datasets.load_dataset(str(path.resolve()), **options)
            for rows in splits.values():
                # The JSON reader lets non-UTF-8 bytes through; they would fail later, far from the file.
                loaded_digest(rows)
            return splits
    except Exception as error:
        cause = error.__cause__ or error
        if _is_of_the_cache(cause, [path, *files]):
            raise AlignzooError(
                f"the dataset cache {datasets.config.HF_DATASETS_CACHE} is not usable: {_first_line(cause)}",
                hint="free some space there, or set HF_DATASETS_CACHE (or HF_HOME) to a writable folder",
            ) from error
        for file in files:
            find_fault(file, reader, cause)
        raise DataError(f"{path}: cannot be read as {reader}: {_first_line(cause)}") from error


def _is_of_the_cache(cause: BaseException, sources: Sequence[Path]) -> bool:
    """Whether reading failed at the ``datasets`` cache, not at the source."""
    if not isinstance(cause, OSError):
        return False
    elsewhere = isinstance(cause.filename, str) and Path(cause.filename).resolve() not in [s.resolve() for s in sources]
    return elsewhere or cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _state(path: Path) -> str:
    """A name for the file in its current state; ``datasets`` only uses the mtime, which a copied file can share."""
    state = path.stat()
    return digest(state.st_size, state.st_ino, state.st_ctime_ns)[:16]


def _load_hub(source: str, split: str | None) -> DatasetDict:
    import datasets

    name, _, config = source.partition(":")
    try:
        with quiet_datasets(bars=True):
            try:
                loaded = datasets.load_dataset(name, config or None, split=split)
            except ValueError as error:
                if not config or "not found" not in str(error):
                    raise
                # Some datasets (HH-RLHF) have folders instead of configurations.
                loaded = datasets.load_dataset(name, data_dir=config, split=split)
    except Exception as error:
        raise DataError(
            f"{source}: cannot be loaded from the Hugging Face hub: {_first_line(error)}",
            hint=offline_hint(_first_line(error))
            or "check the id (org/name or org/name:config), the split, the network and `hf auth login`; "
            "a local file or folder works too",
        ) from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict({str(split): loaded})


def _pick_split(splits: DatasetDict, source: str, split: str | None) -> Dataset:
    names = list(splits)
    if split is None and len(names) == 1:
        return splits[names[0]]
    wanted = split or "train"
    if wanted not in splits:
        problem = f"has no split {split!r}" if split else "has several splits"
        raise DataError(f"{source}: {problem}", hint=f"choose one with --data.split: {', '.join(names)}")
    return splits[wanted]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
