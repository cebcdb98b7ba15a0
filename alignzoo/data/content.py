"""The rows of files block by block with flat memory, and the hash of their content, computed once per state of a file.

Reading through a memory map makes every page that was touched count as the process's memory; a million pairs would be
gigabytes of it. Reading the blocks one after the other holds one of them at a time.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.base.files import clear_leftovers, whole
from alignzoo.base.stored import file_digest
from alignzoo.data.digests import digest, rows_digest, tables_digest

if TYPE_CHECKING:
    from datasets import Dataset

_SETTLED = 2.0
"""Seconds after which a change of a file can no longer share its time stamp with the state that was hashed."""


def file_blocks(rows: Dataset) -> Iterator[Any] | None:
    """The rows as pyarrow tables, read from their files; None where the rows are not simply all that the files hold.

    For rows as a loader or ``map`` gave them: what was done to columns since is not looked for.
    """
    import pyarrow as pa  # type: ignore[import-untyped]

    files = [entry["filename"] for entry in rows.cache_files]
    if not files or rows._indices is not None:
        return None
    count = 0
    for file in files:
        with pa.memory_map(file) as source, pa.ipc.open_stream(source) as batches:
            if not batches.schema.equals(rows.data.schema, check_metadata=False):
                return None
            count += sum(batch.num_rows for batch in batches)  # from the blocks' headers: their content is not touched
    return _read(files) if count == len(rows) else None


def _read(files: Iterable[str]) -> Iterator[Any]:
    import pyarrow as pa

    for file in files:
        with pa.OSFile(file) as source, pa.ipc.open_stream(source) as batches:
            for batch in batches:
                yield pa.Table.from_batches([batch])


def loaded_digest(rows: Dataset) -> str:
    """``rows_digest`` of rows just loaded from files, which are validated on the way.

    The digest is remembered by where the files lie and by their size, inode and times of change. That is safe: writing
    to a file changes its ctime, which nobody can set back as they can the mtime, and a file put in its place has
    another inode; a file that changed so shortly ago that the next change could fall into the same tick of the clock is
    hashed again next time. What moves a ctime without changing content (chmod, a copy) only costs another hashing.

    Raises:
        pyarrow.ArrowInvalid: the rows hold bytes that are no UTF-8.
    """
    files = [Path(entry["filename"]).resolve() for entry in rows.cache_files]
    # The fingerprint tells apart the slices of one file that a loader may give.
    what = digest(rows._fingerprint, len(rows), str(rows.features))
    if files and (known := remembered(what, files)) is not None:
        return known
    blocks = file_blocks(rows)
    if blocks is None:
        rows.data.validate(full=True)
        found = rows_digest(rows)
    else:
        found = tables_digest(_validated(blocks))
    if files and settled(files):
        remember(what, files, found)
    return found


def known_digest(file: Path) -> str:
    """The digest of a file's bytes, remembered like that of rows.

    Raises:
        OSError: it cannot be read.
    """
    known = remembered("bytes", [file])
    if known is None:
        known = file_digest(file)
        if settled([file]):
            remember("bytes", [file], known)
    return known


def _validated(blocks: Iterable[Any]) -> Iterator[Any]:
    for block in blocks:
        block.validate(full=True)
        yield block


def remembered(what: str, files: Iterable[Path]) -> str | None:
    """What was found out about the files in their present state, None if nothing was."""
    try:
        found = json.loads(_memo(what, files).read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def remember(what: str, files: Iterable[Path], found: str) -> None:
    """Write whole or not at all; where nothing can be written it is found out again next time."""
    with contextlib.suppress(OSError):
        memo = _memo(what, files)
        clear_leftovers(memo.parent)
        memo.parent.mkdir(parents=True, exist_ok=True)
        with whole(memo, durable=False) as path:
            path.write_text(json.dumps({"digest": found}), encoding="utf-8")


def settled(files: Iterable[Path]) -> bool:
    """Whether the next change of any of the files will show in its time stamp."""
    return time.time() - max(file.stat().st_ctime for file in files) > _SETTLED


def _memo(what: str, files: Iterable[Path]) -> Path:
    """The file that remembers something about files in their present state."""
    import datasets

    states = []
    for file in files:
        path = file.resolve()
        state = path.stat()
        states.append([str(path), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns])
    return Path(datasets.config.HF_DATASETS_CACHE) / "alignzoo-digests" / f"{digest(states, what)}.json"
