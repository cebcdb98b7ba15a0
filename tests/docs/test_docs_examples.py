"""The marked examples of the documentation run, and print what the pages say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from docs_helpers import PAGES, ROOT, Block, blocks, commands
from in_process import call_main

from alignzoo.sandbox import preference_rows

Call = Callable[[list[str]], "subprocess.CompletedProcess[str]"]
TESTED = [page for page in PAGES if any(block.marker.startswith("test") for block in blocks(page))]
ALIGNZOO = [sys.executable, "-m", "alignzoo"]


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


def _with_plugin(folder: Path) -> dict[str, str]:
    """An environment in which the distribution of ``folder/pyproject.toml`` is installed, without installing it."""
    project = (folder / "pyproject.toml").read_text()
    [name] = re.findall(r'^name = "(.+)"$', project, re.MULTILINE)
    [points] = re.findall(r"^\[project\.entry-points\.alignzoo\]\n((?:.+\n)+)", project, re.MULTILINE)
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[alignzoo]\n" + points.replace('"', ""))
    return {**os.environ, "PYTHONPATH": str(folder)}


def _elsewhere(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize("page", TESTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, folder: Path, here: Call) -> None:
    found = blocks(page)
    files = [block for block in found if block.marker.startswith("file: ")]
    for block in files:
        (folder / block.marker.removeprefix("file: ")).write_text(block.text)
    # A page that brings a plugin needs processes of its own: this one has looked for plugins already.
    environment = _with_plugin(folder) if files else None
    call = here if environment is None else lambda words: _elsewhere([*ALIGNZOO, *words], environment)
    printed = ""
    for block in found:
        where = f"{page.name}:{block.line}"
        if block.marker.startswith("test") and block.language == "bash":
            printed = _run_bash(block, call, where)
        elif block.marker == "test" and block.language == "python":
            _run_python(block, environment, where)
        elif block.marker == "output":
            _assert_printed(block.text.splitlines(), printed, where)


def _run_bash(block: Block, call: Call, where: str) -> str:
    """Run the lines of a block and return what the last one printed."""
    kind = block.marker.removeprefix("test").removeprefix(": ")
    code = int(kind.removeprefix("exit ")) if kind.startswith("exit ") else 0
    printed = ""
    for line in commands(block.text):
        words = shlex.split(line)
        assert words[0] == "alignzoo", f"{where}: {line}: only lines of alignzoo are run"
        ended = call(words[1:] + (["--dry-run"] if kind == "dry-run" and words[1] == "run" else []))
        assert ended.returncode == code, f"{where}: {line}: exit {ended.returncode}\n{ended.stderr}"
        printed = ended.stdout + ended.stderr
    return printed


def _run_python(block: Block, environment: dict[str, str] | None, where: str) -> None:
    if environment is None:
        exec(compile(block.text, where, "exec"), {"__name__": "__main__"})
        return
    ended = _elsewhere([sys.executable, "-c", block.text], environment)
    assert ended.returncode == 0, f"{where}\n{ended.stderr}"


def _assert_printed(lines: list[str], printed: str, where: str) -> None:
    """Each line was printed, in this order; ``...`` stands for any lines. White space is not compared."""
    remaining = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in lines:
        wanted = " ".join(line.split())
        assert wanted in ("...", "") or wanted in remaining, f"{where}: not printed: {line}\n{printed}"


def test_the_keys_of_metrics_are_explained(folder: Path, here: Call) -> None:
    page = ROOT / "docs" / "runs.md"
    first = next(block for block in blocks(page) if block.marker == "test")
    _run_bash(first, here, page.name)
    text = page.read_text(encoding="utf-8")
    keys = {key for line in (folder / "runs/first/metrics.jsonl").open() for key in json.loads(line)}
    assert "geometry/survival" in keys
    unexplained = {key for key in keys if f"`{key}`" not in text and f"`{key.removeprefix('eval/')}`" not in text}
    assert unexplained == set()
    names = {path.name for path in (folder / "runs/first").iterdir()}
    assert {name for name in names if f"`{name}" not in text} == set()
