"""Every kind of source loads into the same rows; every fault names the file, the line and the field."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

from alignzoo.data.sources import is_path, load_rows, locate
from alignzoo.errors import AlignzooError, DataError, UsageError
from alignzoo.model.source import find_model

ROWS: list[dict[str, Any]] = [{"chosen": "a x", "rejected": "a y"}, {"chosen": "None", "rejected": "NA"}]
Jsonl = Callable[..., str]


def _write(path: Path, kind: str) -> Path:
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    if kind in ("jsonl", "json"):
        path.write_text(lines if kind == "jsonl" else json.dumps(ROWS))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == "csv":
        path.write_text("chosen,rejected\na x,a y\nNone,NA\n")
    elif kind == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    else:
        Dataset.from_list(ROWS).save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "arrow"])
def test_every_kind_of_file_gives_the_same_rows_from_disk(kind: str, tmp_path: Path) -> None:
    rows = load_rows(str(_write(tmp_path / f"pairs.{kind}", kind)))
    assert list(rows) == ROWS
    assert rows.cache_files, "rows must be memory-mapped"


def test_folder_of_files_with_splits_named_in_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    _write(folder / "train.jsonl", "jsonl")
    (folder / "test.jsonl").write_text('{"chosen": "t x", "rejected": "t y"}\n')
    (folder / "README.md").write_text("# About the data\n")
    assert len(load_rows(str(folder))) == 2
    assert load_rows(str(folder), split="test")[0]["chosen"] == "t x"


def test_splits_of_a_saved_dataset(tmp_path: Path) -> None:
    part = Dataset.from_list(ROWS)
    DatasetDict({"train": part, "test": part.select([0])}).save_to_disk(tmp_path / "both")
    DatasetDict({"dev": part, "test": part}).save_to_disk(tmp_path / "neither")
    assert len(load_rows(str(tmp_path / "both"))) == 2
    assert len(load_rows(str(tmp_path / "both"), split="test")) == 1
    with pytest.raises(DataError, match="no split 'trian'") as no_such:
        load_rows(str(tmp_path / "both"), split="trian")
    assert "train, test" in str(no_such.value)
    with pytest.raises(DataError, match="several splits") as several:
        load_rows(str(tmp_path / "neither"))
    assert "dev, test" in str(several.value)


def test_folder_without_data_or_of_mixed_kinds(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no data files") as nothing:
        load_rows(str(empty))
    assert ".parquet" in str(nothing.value)
    _write(empty / "a.jsonl", "jsonl")
    _write(empty / "b.csv", "csv")
    with pytest.raises(DataError, match="several kinds"):
        load_rows(str(empty))


def test_missing_file_names_the_path_and_near_matches(jsonl: Jsonl, tmp_path: Path) -> None:
    jsonl(ROWS, "preferences.jsonl")
    with pytest.raises(DataError, match=r"preference\.jsonl: no such file") as error:
        load_rows(str(tmp_path / "preference.jsonl"))
    assert "preferences.jsonl" in (error.value.hint or "")
    with pytest.raises(DataError, match="no such file") as error:
        load_rows(str(tmp_path / "nowhere" / "x.jsonl"))
    assert "nowhere does not exist" in (error.value.hint or "")


def test_unknown_suffix_lists_the_supported_ones(tmp_path: Path) -> None:
    path = tmp_path / "pairs.xlsx"
    path.write_text("?")
    with pytest.raises(DataError, match=r"pairs\.xlsx") as error:
        load_rows(str(path))
    assert ".jsonl.gz" in str(error.value)
    assert ".parquet" in str(error.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"chosen": "a",', r":3: not valid JSON: .*column"),
        ("[1, 2]", ":3: is a list, expected an object"),
        ('"text"', ":3: is text, expected an object"),
    ],
)
def test_malformed_line_names_file_and_line(line: str, problem: str, jsonl: Jsonl) -> None:
    path = jsonl([ROWS[0], "", line, ROWS[1]])
    with pytest.raises(DataError, match=f"pairs.jsonl{problem}"):
        load_rows(path)


def test_malformed_line_in_a_gzip_and_in_a_json_array(tmp_path: Path) -> None:
    zipped = tmp_path / "pairs.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"chosen": "a"}\n{"chosen"\n'))
    with pytest.raises(DataError, match=r"pairs\.jsonl\.gz:2: not valid JSON"):
        load_rows(str(zipped))
    whole = zipped.read_bytes()
    zipped.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"pairs\.jsonl\.gz"):
        load_rows(str(zipped))
    array = tmp_path / "pairs.json"
    array.write_text('[\n{"chosen": "a"},\n{"chosen": }\n]')
    with pytest.raises(DataError, match=r"pairs\.json:3: not valid JSON"):
        load_rows(str(array))


def test_damaged_bytes_empty_files_and_ragged_csv(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"chosen": "a"}\n{"chosen": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: not UTF-8"):
        load_rows(str(path))
    path.write_text("\n")
    with pytest.raises(DataError, match="empty"):
        load_rows(str(path))
    ragged = tmp_path / "pairs.csv"
    ragged.write_text("chosen,rejected\na,b\na,b,c,d\n")
    with pytest.raises(DataError, match=r"pairs\.csv:3"):
        load_rows(str(ragged))
    broken = tmp_path / "pairs.parquet"
    broken.write_text("PAR?")
    with pytest.raises(DataError, match=r"pairs\.parquet: cannot be read as parquet"):
        load_rows(str(broken))


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "Operation not permitted", "/nowhere/cache"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_file(
    error: OSError, wrapped: bool, jsonl: Jsonl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: Any, **__: Any) -> Dataset:
        if wrapped:
            raise ValueError("An error occurred while generating the dataset") from error
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    path = jsonl(ROWS)
    with pytest.raises(AlignzooError, match=f"the dataset cache .* is not usable: .*{error.strerror}") as refused:
        load_rows(path)
    assert path not in str(refused.value)
    assert str(datasets.config.HF_DATASETS_CACHE) in refused.value.message
    assert "HF_DATASETS_CACHE (or HF_HOME)" in (refused.value.hint or "")


def test_a_file_that_cannot_be_read_is_itself_to_blame(jsonl: Jsonl, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(ROWS)

    def load_dataset(*_: Any, **__: Any) -> Dataset:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"pairs\.jsonl: cannot be read as json: .*Input/output error"):
        load_rows(path)


def test_the_home_folder_of_nobody_is_a_usage_error() -> None:
    for look in (load_rows, find_model, lambda name: locate(name, [0])):
        with pytest.raises(UsageError, match=r"~nosuchuser/x: there is no such home folder"):
            look("~nosuchuser/x")


def test_hub_id_without_a_network_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    with pytest.raises(DataError, match="org/nothing-here: cannot be loaded from the Hugging Face hub") as error:
        load_rows("org/nothing-here")
    assert "check the network" in (error.value.hint or "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="org/nothing-here: cannot be loaded from the Hugging Face hub") as error:
        load_rows("org/nothing-here")
    assert "HF_HUB_OFFLINE is set" in (error.value.hint or "")


def test_hub_part_is_a_configuration_or_else_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load_dataset(*args: Any, **options: Any) -> Dataset:
        calls.append((args, options))
        if "data_dir" not in options:
            raise ValueError("BuilderConfig 'harmless-base' not found. Available: ['default']")
        return Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_rows("Anthropic/hh-rlhf:harmless-base", split="test")) == 2
    assert calls[0] == (("Anthropic/hh-rlhf", "harmless-base"), {"split": "test"})
    assert calls[1] == (("Anthropic/hh-rlhf",), {"data_dir": "harmless-base", "split": "test"})


@pytest.mark.parametrize("source", ["./x", "/x", "../x", "~/x", "x.jsonl", "data/x.csv", "a/b/c", "word"])
def test_looks_like_a_path(source: str) -> None:
    assert is_path(source)


@pytest.mark.parametrize("source", ["Anthropic/hh-rlhf", "org/name:config", "org/model-v1.5", "org/HH_rlhf"])
def test_looks_like_a_hub_id(source: str) -> None:
    assert not is_path(source)


def test_a_folder_that_exists_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert is_path("org/name")


def test_blank_lines_do_not_shift_the_line_of_a_row(jsonl: Jsonl) -> None:
    path = jsonl([ROWS[0], "", "", ROWS[1]])
    assert len(load_rows(path)) == 2
    assert locate(path, [0, 1]) == [f"{path}:1", f"{path}:4"]
    assert locate("org/name", [7]) == ["org/name, row 7 (counted from 0)"]
    assert locate(None, [7]) == ["row 7 (counted from 0)"]
