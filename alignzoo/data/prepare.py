"""Prepares preference data as a tokenised, memory-mapped dataset, cached by content."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.base.files import clear_leftovers, scratch
from alignzoo.base.stored import file_digest, read_sealed, sealed
from alignzoo.data.content import file_blocks, known_digest, loaded_digest
from alignzoo.data.digests import digest, rows_digest, tokenizer_digest
from alignzoo.data.formats import choose_layout
from alignzoo.data.kept import Kept
from alignzoo.data.malformed import describe_rows, malformed_rows
from alignzoo.data.original import OriginalRows
from alignzoo.data.quiet import quiet_datasets
from alignzoo.data.shapes import Shape
from alignzoo.data.sources import load_rows
from alignzoo.data.summary import DataSummary, Dropped
from alignzoo.data.tokenise_rows import TokeniseRows, columns_of
from alignzoo.errors import AlignzooError, DamagedError, DataError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Raise it whenever the same rows would be processed differently; otherwise caches return the old result.
CODE_VERSION = 4
_MANY_ROWS = 5000
_MOST_WORKERS = 8
_ROWS_PER_BLOCK = 1000
_SHOWN_ROWS = 3
_ROWS_FILE, _CONTENTS_FILE, _SUMMARY_FILE = "rows.arrow", "contents.npy", "summary.json"


@dataclass(frozen=True)
class Prepared:
    """Tokenised rows and their summary.

    A row of ``dataset`` is a prompt with k responses, best first if they are ordered: ``row_id`` (row number in the
    source, from 0), ``prompt_ids`` (int32) and ``response_ids`` (k lists; prompt + response is a whole sequence),
    ``prompt_key`` (equal for equal prompts), ``prompt_text`` and ``response_text`` (k texts as tokenised, including the
    template's special tokens), in unpaired data ``label`` (+1 or −1) and, if the data has them, ``safe`` and ``score``
    (k values each) and ``group``.
    ``fingerprint``: sha256 of the kept rows, including their numbers. ``original``: the source's rows, by ``row_id``.
    ``contents``: a hash of each row without its number, ``(N, 32)`` uint8, in the rows' order.
    ``highest_id``: the largest token id.
    """

    dataset: Dataset
    summary: DataSummary
    fingerprint: str
    original: OriginalRows
    contents: np.ndarray
    highest_id: int

    @property
    def shape(self) -> Shape:
        return self.summary.shape


def prepare(
    source: str | Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str | None = None,
    data_format: str | None = None,
    max_length: int,
    max_prompt_length: int,
    workers: int | None = None,
) -> Prepared:
    """Load, normalise, tokenise and filter; a second call with the same content and settings reads the cache.

    Args:
        source: hub id, file, folder, or loaded rows (``split`` is then ignored).
        data_format: a layout's name; None detects it.
        max_length: tokens of prompt + response; longer responses are truncated and counted.
        max_prompt_length: tokens of the prompt; rows with a longer one are dropped and counted.
        workers: processes; None uses one for small sources, else up to 8.

    Raises:
        DataError: unreadable or malformed source, unknown layout, or no usable row.
        ModelError: chat messages but no chat template.
        UsageError: an unknown layout name or impossible lengths.
    """
    if max_prompt_length < 1 or max_length < 2:
        raise UsageError(
            f"--max-length {max_length} and --max-prompt-length {max_prompt_length} leave no room for a row",
            hint="--max-length must be at least 2, --max-prompt-length at least 1",
        )
    name = source if isinstance(source, str) else None
    rows = load_rows(source, split=split) if isinstance(source, str) else source.with_format(None)
    layout = choose_layout(rows, data_format)
    settings = (CODE_VERSION, layout.name + layout.version, max_length, max_prompt_length)
    key = digest(_content(rows, name), tokenizer_digest(tokenizer), *settings)
    folder = _cache_root() / key
    original = OriginalRows(rows, layout)
    prepared, damage = _kept(folder, original)
    if prepared is None:
        task = TokeniseRows(layout, tokenizer, max_length, max_prompt_length, name)
        with scratch(folder.parent) as beside:
            _build(rows, task, beside, key, workers)
            _publish(beside / "rows", folder)
        prepared, unreadable = _kept(folder, original)
        if prepared is None:
            raise DataError(
                f"{folder}: the tokenised data cannot be read back ({unreadable})",
                hint="check whether the disk is full",
            )
    summary = replace(prepared.summary, source=name or "rows in memory", split=split)
    return replace(prepared, summary=replace(summary, notes=(*layout.notes(rows.column_names), *damage)))


def _content(rows: Dataset, name: str | None) -> str:
    if name is None:
        return rows_digest(rows)
    try:
        return loaded_digest(rows)
    except ValueError as error:  # from Arrow: bytes that are not text; files were scanned on loading
        raise DataError(f"{name}: cannot be read: {str(error).splitlines()[0]}") from error


def _cache_root() -> Path:
    import datasets

    root = Path(datasets.config.HF_DATASETS_CACHE) / "alignzoo"
    clear_leftovers(root)
    return root


def _kept(folder: Path, original: OriginalRows) -> tuple[Prepared | None, list[str]]:
    """The cached result of an earlier call, or None; a corrupt entry is removed, with a warning."""
    if not folder.exists():
        return None, []
    try:
        return _load(folder, original), []
    except (AlignzooError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return None, [f"the cached tokenised rows are corrupt and are recomputed: {error}"]


def _load(folder: Path, original: OriginalRows) -> Prepared:
    """The tokenised rows in a folder.

    Raises:
        DamagedError, OSError: they are corrupt or unreadable.
    """
    import datasets

    stored = read_sealed(folder / _SUMMARY_FILE)
    for name in (_ROWS_FILE, _CONTENTS_FILE):
        if known_digest(folder / name) != stored["files"][name]:
            raise DamagedError(folder / name, "its content is not what was written")
    dataset = datasets.Dataset.from_file(str(folder / _ROWS_FILE))
    contents = np.load(folder / _CONTENTS_FILE, mmap_mode="r", allow_pickle=False)
    summary = DataSummary.from_dict(stored["summary"])
    return Prepared(dataset, summary, stored["fingerprint"], original, contents, stored["highest_id"])


def _build(rows: Dataset, task: TokeniseRows, beside: Path, key: str, workers: int | None) -> None:
    """Write the kept rows, their content hashes and their summary to ``beside/rows``."""
    many = len(rows) > _MANY_ROWS
    processes = workers if workers is not None else (min(os.cpu_count() or 1, _MOST_WORKERS) if many else 1)
    features = columns_of(task.layout, rows.column_names)
    with quiet_datasets(bars=many), _forking(processes):
        tokenised = rows.map(
            task,
            batched=True,
            with_indices=True,
            batch_size=_ROWS_PER_BLOCK,
            remove_columns=rows.column_names,
            features=features,
            num_proc=processes if processes > 1 else None,
            cache_file_name=str(beside / "all.arrow"),
            load_from_cache_file=False,
            new_fingerprint=key[:32],
            desc="tokenising",
        )
    folder, kept = beside / "rows", Kept(task)
    folder.mkdir()
    blocks = file_blocks(tokenised)
    assert blocks is not None, "the output of map is read unchanged"
    kept.write(blocks, folder / _ROWS_FILE, features, key[:32])
    if kept.usable == 0:
        raise DataError(
            f"{task.source or 'the data'}: none of its {kept.rows} rows is usable",
            hint=_reasons(rows, task, kept.dropped()),
        )
    np.save(folder / _CONTENTS_FILE, kept.contents())
    stored = {
        "summary": kept.summary().to_dict(),
        "fingerprint": kept.fingerprint(),
        "highest_id": kept.highest_id,
        "files": {name: file_digest(folder / name) for name in (_ROWS_FILE, _CONTENTS_FILE)},
    }
    (folder / _SUMMARY_FILE).write_text(json.dumps(sealed(stored), indent=1), encoding="utf-8")


def _reasons(rows: Dataset, task: TokeniseRows, dropped: dict[str, Dropped]) -> str:
    """Why no rows are left, with details of the first malformed ones."""
    lines = [f"    {entry.count:>7}  {reason}" for reason, entry in dropped.items()]
    count, numbers = malformed_rows(dropped)
    if count:
        lines += [f"layout {task.layout.name}: {task.layout.columns}"]
        lines += describe_rows(rows, task.layout, task.source, numbers[:_SHOWN_ROWS])
    return "\n".join(["rows dropped, by reason:", *lines])


def _publish(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        # Another process (a second rank) was faster and wrote the same content.
        if not folder.exists():
            raise


@contextmanager
def _forking(processes: int) -> Iterator[None]:
    """Context for ``map`` to fork several workers cheaply; a no-op for one, which is this process.

    Workers use all cores; the tokenizer's own threads would compete with them, and warn about forking. Also, garbage
    collection in a worker touches every object it shares with this process, and each touched page is copied: 100 MB per
    worker if torch is imported.
    """
    if processes == 1:
        yield
        return
    threads, frozen = os.environ.get("TOKENIZERS_PARALLELISM"), gc.get_freeze_count()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        os.environ.pop("TOKENIZERS_PARALLELISM", None)
        if threads is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = threads
