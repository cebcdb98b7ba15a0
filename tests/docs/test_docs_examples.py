"""The marked examples of the documentation run, and print what the pages say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alignzoo_sandbox import preference_rows
from docs_helpers import PAGES, ROOT, blocks
from in_process import call_main
from reader import Call, Reader, assert_printed, brings_plugins, edit, marked

TESTED = [page for page in PAGES if marked(blocks(page))]
FIRST_READ = ("README.md", "tutorial.md")


def _page(page: Path) -> Any:
    """Pages that install plugins start a process for each command, which takes a minute: only the first two that a
    reader sees are followed in every test run."""
    marks = [pytest.mark.slow] if brings_plugins(marked(blocks(page))) and page.name not in FIRST_READ else []
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with pairs of their own."""
    rows = [
        {"prompt": row["prompt"][0]["content"], **{side: row[side][0]["content"] for side in ("chosen", "rejected")}}
        for row in preference_rows("train", 64)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Call:
    """``alignzoo WORDS`` by the real ``main``, without a new process for each of the many lines."""

    def call(words: list[str]) -> subprocess.CompletedProcess[str]:
        return call_main(words, capfd)

    return call


@pytest.mark.parametrize("page", map(_page, TESTED))
def test_examples_run(page: Path, folder: Path, here: Call) -> None:
    found = marked(blocks(page))
    reader = Reader(folder, None if brings_plugins(found) else here)
    for block in found:
        reader.follow(block, f"{page.name}:{block.line}")


def test_the_keys_of_metrics_are_explained(folder: Path, here: Call) -> None:
    page = ROOT / "docs" / "runs.md"
    Reader(folder, here).follow(next(block for block in blocks(page) if block.marker == "test"), page.name)
    text = page.read_text(encoding="utf-8")
    keys = {key for line in (folder / "runs/first/metrics.jsonl").open() for key in json.loads(line)}
    assert "geometry/survival" in keys
    unexplained = {key for key in keys if f"`{key}`" not in text and f"`{key.removeprefix('eval/')}`" not in text}
    assert unexplained == set()
    names = {path.name for path in (folder / "runs/first").iterdir()}
    assert {name for name in names if f"`{name}" not in text} == set()


@pytest.mark.parametrize(
    ("page", "agrees"),
    [
        ("a\nb\nc\n", True),
        ("a\n...\nc\n", True),
        ("a\n...\nb\nc\n...\n", True),
        ("a\nc\n", False),
        ("a\nb\n", False),
        ("a\n…\nc\n", True),
        ("a  \n\nb\nc", True),
        ("a\nb\nc\nd\n", False),
    ],
)
def test_output_is_compared_whole(page: str, agrees: bool) -> None:
    if agrees:
        assert_printed(page, ("", "a\nb\nc\n"), "here")
    else:
        with pytest.raises(AssertionError):
            assert_printed(page, ("", "a\nb\nc\n"), "here")


def test_times_are_the_machine_s() -> None:
    assert_printed("took 1.25 s, 3.0s (v1.2)", ["took 10.2 s, 0.01s (v1.2)"], "here")
    with pytest.raises(AssertionError):
        assert_printed("loss 1.25", ["loss 1.26"], "here")


def test_an_edit_replaces_lines_that_are_there_once(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("one\ntwo\nthree\n")
    edit(file, " one\n-two\n+2\n...\n+zero\n one\n", "here")
    assert file.read_text() == "zero\none\n2\nthree\n"
    with pytest.raises(AssertionError, match="0 times"):
        edit(file, "-two\n", "here")
