"""Reads rows block by block in constant memory, and hashes their content once per state of a file.

With a memory map, every page read counts as the process's memory: gigabytes for a million pairs. Reading blocks one
after the other needs memory for only one.
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
"""Seconds after which a file change can no longer share a time stamp with the hashed state."""


def file_blocks(rows: Dataset) -> Iterator[Any] | None:
    """The rows as pyarrow tables, read from their files; None if the rows are not exactly the files' content.

    For rows as returned by a loader or ``map``: later changes to columns are not detected.
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
            count += sum(batch.num_rows for batch in batches)  # from the blocks' headers, without reading their content
    return _read(files) if count == len(rows) else None


def _read(files: Iterable[str]) -> Iterator[Any]:
    import pyarrow as pa

    for file in files:
        with pa.OSFile(file) as source, pa.ipc.open_stream(source) as batches:
            for batch in batches:
                yield pa.Table.from_batches([batch])


def loaded_digest(rows: Dataset) -> str:
    """``rows_digest`` of rows just loaded from files, which are validated at the same time.

    The digest is cached by the files' path, size, inode and change times. That is safe: writing to a file changes its
    ctime, which cannot be set back like the mtime, and a replacement has another inode; a file that changed so recently
    that another change could fall into the same clock tick is hashed again next time. A ctime change without a content
    change (chmod, a copy) only costs another hash.

    Raises:
        pyarrow.ArrowInvalid: the rows contain bytes that are not UTF-8.
    """
    files = [Path(entry["filename"]).resolve() for entry in rows.cache_files]
    # The fingerprint distinguishes slices of one file that a loader may return.
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
    """The digest of a file's bytes, cached like that of rows.

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
    """The cached facts about the files in their current state, or None."""
    try:
        found = json.loads(_memo(what, files).read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def remember(what: str, files: Iterable[Path], found: str) -> None:
    """Write atomically; if nothing can be written, the facts are recomputed next time."""
    with contextlib.suppress(OSError):
        memo = _memo(what, files)
        clear_leftovers(memo.parent)
        memo.parent.mkdir(parents=True, exist_ok=True)
        with whole(memo, durable=False) as path:
            path.write_text(json.dumps({"digest": found}), encoding="utf-8")


def settled(files: Iterable[Path]) -> bool:
    """Whether the next change of any file is sure to change its time stamp."""
    return time.time() - max(file.stat().st_ctime for file in files) > _SETTLED


def _memo(what: str, files: Iterable[Path]) -> Path:
    """The cache file for facts about files in their current state."""
    import datasets

    states = []
    for file in files:
        path = file.resolve()
        state = path.stat()
        states.append([str(path), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns])
    return Path(datasets.config.HF_DATASETS_CACHE) / "alignzoo-digests" / f"{digest(states, what)}.json"
