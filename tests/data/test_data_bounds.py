"""Damaged, endless and hostile files are refused in bounded memory; long texts are cut before they are tokenised."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from data_examples import explicit, tokenized

from alignzoo.data import bounds
from alignzoo.data.prepare import prepare
from alignzoo.data.rows import Drop, PreferenceRow
from alignzoo.data.sources import load_rows, locate
from alignzoo.data.tokens import RowTokenizer
from alignzoo.errors import DataError, ModelError

Jsonl = Callable[..., str]


def lines(count: int) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in explicit(count)).encode()


@pytest.mark.parametrize("damage", ["flip", "cut", "checksum", "head"])
def test_a_damaged_gzip_is_named(damage: str, tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(lines(400)))
    if damage == "cut":
        del whole[-300:]
    else:
        whole[{"flip": 200, "checksum": -5, "head": 1}[damage]] ^= 0xFF
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"pairs\.jsonl\.gz: incomplete or corrupt gzip file: "):
        load_rows(str(path))


def test_every_flipped_byte_of_a_gzip_is_a_data_error_or_harmless(tmp_path: Path) -> None:
    whole = gzip.compress(lines(40))
    for at in range(0, len(whole), 7):
        path = tmp_path / f"{at}.jsonl.gz"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(DataError):
            bounds.look_through(path, "json")


@pytest.mark.parametrize("before", [0, 400])
@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 20_000 + "1" + "}" * 20_000])
def test_nesting_that_would_end_the_process_is_refused(before: int, text: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(lines(before) + b'{"prompt": ' + text.encode() + b"}\n")
    with pytest.raises(DataError, match=rf"pairs\.jsonl:{before + 1}: lists or objects nested more than 60 deep"):
        load_rows(str(path))


def test_brackets_in_texts_are_not_nesting(jsonl: Jsonl) -> None:
    rows = explicit(2)
    rows[1]["chosen"] = ' say "[' + "[{" * 5000
    assert load_rows(jsonl(rows))[1]["chosen"] == rows[1]["chosen"]


def test_a_json_array_nested_too_deep_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match="nested more than 60 deep"):
        load_rows(str(path))
    monkeypatch.setattr(bounds, "MAX_ARRAY", 1000)
    path.write_text(json.dumps(explicit(100)))
    with pytest.raises(DataError, match="one JSON array of more than"):
        load_rows(str(path))


def test_nesting_up_to_the_bound_is_read_and_beyond_it_the_line_is_named(jsonl: Jsonl) -> None:
    row = explicit(1)[0]

    def nested(levels: int) -> str:
        return json.dumps(row | {"extra": 0}).replace("0}", "[" * (levels - 1) + "]" * (levels - 1) + "}")

    assert len(load_rows(jsonl([nested(60)], "within.jsonl"))) == 1
    with pytest.raises(DataError, match=r"beyond\.jsonl:2: lists or objects nested more than 60 deep"):
        load_rows(jsonl([row, nested(61)], "beyond.jsonl"))


@pytest.mark.parametrize("before", [b" " * 5000, b"\n" * (2**20 + 1), b"\xef\xbb\xbf\n"])
def test_an_array_is_told_by_its_first_byte_that_is_not_blank(before: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_bytes(before + b"[\n" * 1000 + b"]\n" * 1000)
    with pytest.raises(DataError, match="nested more than 60 deep"):
        bounds.look_through(path, "json")


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.GZ"])
def test_a_gzip_is_bounded_and_read_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n" + lines(3)))
    assert len(load_rows(str(path))) == 3
    assert locate(str(path), [2]) == [f"{path}:4"]
    path.write_bytes(gzip.compress(lines(3) + b"{\n"))
    with pytest.raises(DataError, match=f"{name}:4: not valid JSON"):
        load_rows(str(path))
    monkeypatch.setattr(bounds, "MAX_ARRAY", 1000)
    for bomb, problem in (
        (b"\n" * 2**20, "unpacks to more than"),
        (json.dumps(explicit(50)).encode(), "one JSON array"),
    ):
        path.write_bytes(gzip.compress(bomb))
        with pytest.raises(DataError, match=problem):
            bounds.look_through(path, "json")


@pytest.mark.parametrize("kind", ["zip", "xz", "bz2", "zstd", "tar", "gzipped tar"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_other_compressions_are_refused_by_their_content(kind: str, suffix: str, tmp_path: Path) -> None:
    path, plain = tmp_path / f"pairs.{suffix}", tmp_path / "plain"
    plain.write_bytes(lines(3))
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(plain)
    elif "tar" in kind:
        with tarfile.open(path, "w:gz" if "gz" in kind else "w") as tar:
            tar.add(plain, "plain")
    else:
        packed = {"xz": lzma.compress(lines(3)), "bz2": bz2.compress(lines(3)), "zstd": b"\x28\xb5\x2f\xfd\x00"}
        path.write_bytes(packed[kind])
    with pytest.raises(DataError, match=f"pairs.{suffix}: its content looks like {kind.split()[-1]}, not ") as error:
        load_rows(str(path))
    assert "unpack it" in (error.value.hint or "")


def test_an_endless_line_and_a_gzip_bomb_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b"x" * 2**20)
    feeds = tmp_path / "feeds.jsonl.gz"
    feeds.write_bytes(gzip.compress(b"\n" * 2**27))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from alignzoo.data import bounds\n"
        "from alignzoo.errors import DataError\n"
        "bounds.MAX_ARRAY = 2**26\n"
        "import datasets\n"
        "most = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 2**28\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        bounds.look_through(Path(name), 'json')\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bomb), str(feeds)], capture_output=True, text=True, check=True
    )
    assert f"{bomb}:1: a line of more than 32 MiB" in done.stdout
    assert f"{feeds}: unpacks to more than 200 times its size" in done.stdout


def test_a_number_of_thousands_of_digits_and_half_a_surrogate_pair_name_the_line(jsonl: Jsonl) -> None:
    good = json.dumps(explicit(1)[0])
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: contains half of a surrogate pair"):
        load_rows(jsonl([good, good.replace(" It", " \\ud800 It")]))
    with pytest.raises(DataError, match=r"digits\.jsonl:2: not valid JSON: "):
        load_rows(jsonl([good, '{"prompt": ' + "1" * 5000 + ", "], "digits.jsonl"))


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{% for i in range(10 ** 9) %}x{% endfor %}"])
def test_a_chat_template_that_fails_is_named(template: str, jsonl: Jsonl, chatml: Any) -> None:
    chatml.chat_template = template
    with pytest.raises(ModelError, match=r"the tokenizer's chat template fails: (ZeroDivision|Overflow)Error"):
        prepare(jsonl(explicit(3)), chatml, max_length=64, max_prompt_length=32)


@pytest.mark.parametrize("name", ["gpt2", "chatml", "llama", "metaspace"])
def test_a_long_text_is_cut_before_it_is_tokenised(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = request.getfixturevalue(name)
    longest: list[int] = []
    encode = RowTokenizer.encode

    def spy(self: RowTokenizer, texts: Any) -> Any:
        longest.append(max(map(len, texts)))
        return encode(self, texts)

    row = PreferenceRow("Q: a", " yes no" * 20_000, " no yes")
    monkeypatch.setattr(RowTokenizer, "_bounded", lambda self, row, *_: row)
    whole = tokenized(row, tokenizer, 64, 32)
    monkeypatch.undo()
    monkeypatch.setattr(RowTokenizer, "encode", spy)
    cut = tokenized(row, tokenizer, 64, 32)
    assert not isinstance(whole, Drop)
    assert not isinstance(cut, Drop)
    assert (cut.prompt_ids, cut.response_ids[0], cut.response_ids[1], cut.truncated) == (
        whole.prompt_ids,
        whole.response_ids[0],
        whole.response_ids[1],
        True,
    )
    assert max(longest) < 5000
    assert tokenized(PreferenceRow("a " * 20_000, " y", " n"), tokenizer, 64, 32) == Drop("prompt-too-long")
