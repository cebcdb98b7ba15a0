"""The content hash of loaded rows: computed once per state of a file, and never for another state than the present."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from data_examples import explicit
from datasets import Dataset

from alignzoo.base.stored import file_digest
from alignzoo.data import content
from alignzoo.data.content import file_blocks, known_digest, loaded_digest
from alignzoo.data.digests import rows_digest
from alignzoo.data.sources import load_rows
from alignzoo.errors import DataError

Jsonl = Callable[..., str]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets one entry for every time that rows are read to be hashed; files count as settled at once."""
    times: list[int] = []
    tables_digest = content.tables_digest

    def counted(tables: Iterable[Any]) -> str:
        times.append(1)
        return tables_digest(tables)

    monkeypatch.setattr(content, "tables_digest", counted)
    monkeypatch.setattr(content, "_SETTLED", -1.0)
    return times


def test_block_by_block_or_through_the_map_the_hash_is_one(jsonl: Jsonl, tmp_path: Path) -> None:
    given = explicit(2300)
    rows = load_rows(jsonl(given))
    Dataset.from_list(given).save_to_disk(tmp_path / "saved", num_shards=3)
    saved = load_rows(str(tmp_path / "saved"))
    assert loaded_digest(rows) == loaded_digest(saved) == rows_digest(rows) == rows_digest(Dataset.from_list(given))
    assert loaded_digest(rows) != rows_digest(Dataset.from_list([*given[1:], given[0]])), "order is content"


def test_files_are_read_directly_only_where_the_rows_are_all_of_them(jsonl: Jsonl) -> None:
    rows = load_rows(jsonl(explicit(40)))
    blocks = file_blocks(rows)
    assert blocks is not None
    assert [row for block in blocks for row in block.to_pylist()] == list(rows)
    for other in (rows.select(range(20)), rows.select([3, 1]), rows.rename_column("prompt", "question")):
        assert file_blocks(other) is None
    assert file_blocks(Dataset.from_list(explicit())) is None


def test_a_file_is_hashed_once_however_often_it_is_loaded(jsonl: Jsonl, hashed: list[int]) -> None:
    path = jsonl(explicit(30))
    digests = {loaded_digest(load_rows(path)) for _ in range(3)}
    assert (len(digests), len(hashed)) == (1, 1)


@pytest.mark.parametrize("reply", [" It is 8.", " It is long."], ids=["same size", "new size"])
@pytest.mark.parametrize("old_mtime", [False, True], ids=["new mtime", "mtime set back"])
@pytest.mark.parametrize("place", ["in place", "another file"])
def test_a_file_that_changed_is_read_again(
    jsonl: Jsonl, hashed: list[int], reply: str, old_mtime: bool, place: str
) -> None:
    rows = explicit(30)
    path = Path(jsonl(rows))
    before = path.stat()
    first = loaded_digest(load_rows(str(path)))
    rows[0]["chosen"] = reply
    if place == "another file":
        path.unlink()
    jsonl(rows)
    if old_mtime:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    loaded = load_rows(str(path))
    assert loaded[0]["chosen"] == reply
    assert loaded_digest(loaded) != first
    assert loaded_digest(loaded) == rows_digest(Dataset.from_list(rows))
    assert len(hashed) == 2


def test_the_loaded_file_itself_is_watched(tmp_path: Path, hashed: list[int]) -> None:
    saved, other = tmp_path / "saved", tmp_path / "other"
    Dataset.from_list(explicit(30)).save_to_disk(saved)
    first = loaded_digest(load_rows(str(saved)))
    Dataset.from_list([*explicit(29), {**explicit(1)[0], "prompt": "What is 9"}]).save_to_disk(other)
    (file,) = saved.glob("*.arrow")
    times = file.stat()
    shutil.copyfile(next(other.glob("*.arrow")), file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loaded_digest(load_rows(str(saved))) != first


def test_a_file_that_has_just_changed_is_not_remembered(jsonl: Jsonl, own_cache: Path) -> None:
    loaded_digest(load_rows(jsonl(explicit(30))))
    assert not (own_cache / "alignzoo-digests").exists()


def test_a_damaged_note_is_ignored_and_a_cache_that_cannot_be_written_too(
    jsonl: Jsonl, hashed: list[int], own_cache: Path
) -> None:
    path = jsonl(explicit(30))
    first = loaded_digest(load_rows(path))
    notes = list((own_cache / "alignzoo-digests").iterdir())
    for damage in ("", "{", "[]", json.dumps({"digest": 3}), "[" * 100_000):
        for note in notes:
            note.write_text(damage)
        assert loaded_digest(load_rows(path)) == first
    assert len(hashed) == 6
    shutil.rmtree(own_cache / "alignzoo-digests")
    (own_cache / "alignzoo-digests").write_text("a file where the folder would be")
    assert loaded_digest(load_rows(path)) == first


def test_slices_of_one_file_are_told_apart(jsonl: Jsonl, hashed: list[int]) -> None:
    rows = load_rows(jsonl(explicit(30)))
    halves = [rows.select(range(15)), rows.select(range(15, 30))]
    assert len({loaded_digest(half) for half in [rows, *halves]}) == 3


def test_rows_that_are_no_text_are_found_when_they_are_hashed(jsonl: Jsonl, tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"chosen": "a"}\n{"chosen": "\xff\xfe"}\n')
    for _ in range(2):
        with pytest.raises(DataError, match=r"pairs\.jsonl:2: not UTF-8"):
            load_rows(str(path))


def test_the_bytes_of_a_file_are_hashed_again_only_when_it_has_changed(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(content, "_SETTLED", -1.0)
    monkeypatch.setattr(content, "file_digest", lambda path: read.append(path) or file_digest(path))
    file = tmp_path / "pairs.arrow"
    file.write_bytes(b"some tokens")
    first = known_digest(file)
    assert known_digest(file) == first
    assert len(read) == 1
    stamps = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"S")
    os.utime(file, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert known_digest(file) != first
    assert len(read) == 2
