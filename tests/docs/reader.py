"""Somebody who follows a page to the letter: types its commands, writes and edits its files, compares what it prints.

A marker in the line before a block says what is done with it:

====================  ============================================================================================
``test``              run the commands (bash), or the code (python)
``test: dry-run``     the same, with ``--dry-run`` on every ``alignzoo run`` and ``sweep``
``test: exit CODE``   the same; the last command ends with that exit code
``file: PATH``        write the file
``edit: PATH``        a diff without line numbers: put the ``+`` lines in the place of the ``-`` lines
``excerpt: PATH``     these lines are in the file
``output``            what the block above printed to stdout, to stderr or to both, whole: a line ``...`` stands for
                      any lines, ``…`` for any text, a time in seconds for any other one
====================  ============================================================================================
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from docs_helpers import Block, commands

Ended = subprocess.CompletedProcess[str]
Call = Callable[[list[str]], Ended]
SECONDS = 120
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]


def brings_plugins(blocks: list[Block]) -> bool:
    """Whether a page makes or loads plugins: it then needs processes of its own, for this one has looked for them."""
    return any(
        b.marker.startswith(("file: ", "edit: ")) or re.search(r"^(pip|cd|alignzoo new) |--plugin ", b.text, re.M)
        for b in marked(blocks)
    )


def marked(blocks: list[Block]) -> list[Block]:
    """The blocks with a marker that means something to a reader."""
    return [b for b in blocks if b.marker == "output" or re.match(r"(test\b|file: |edit: |excerpt: )", b.marker)]


class Reader:
    """Follows the blocks of one page in order.

    Args:
        folder: where the page starts.
        here: ``alignzoo WORDS`` in this process; None where every command needs one of its own.
    """

    def __init__(self, folder: Path, here: Call | None = None) -> None:
        self.start = self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": ""}
        self.out = self.err = ""
        self._here = here

    def follow(self, block: Block, where: str) -> None:
        """Do what one block says."""
        kind, _, value = block.marker.partition(": ")
        if kind == "file":
            path = self.folder / value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif kind == "edit":
            edit(self.folder / value, block.text, where)
        elif kind == "excerpt":
            assert block.text in (self.folder / value).read_text(encoding="utf-8"), f"{where}: not in {value}"
        elif kind == "output":
            assert_printed(block.text, (self.out, self.err, self.out + self.err), where)
        elif block.language == "python":
            self._python(block.text, where)
        else:
            self._bash(block, value, where)

    def _bash(self, block: Block, kind: str, where: str) -> None:
        lines = commands(block.text)
        self.out = self.err = ""
        for line in lines:
            code = int(kind.removeprefix("exit ")) if kind.startswith("exit ") and line is lines[-1] else 0
            ended = self._command(shlex.split(line), dry=kind == "dry-run", where=where)
            assert ended.returncode == code, f"{where}: {line}: exit {ended.returncode}\n{ended.stdout}{ended.stderr}"
            self.out += ended.stdout
            self.err += ended.stderr

    def _command(self, words: list[str], *, dry: bool, where: str) -> Ended:
        program, *rest = words
        if program == "alignzoo":
            rest += ["--dry-run"] if dry and {"run", "sweep"} & set(rest[:3]) else []
            return self._here(rest) if self._here else self._process([script("alignzoo"), *rest])
        if program == "cd":
            self.folder = (self.folder / rest[0]).resolve()
            assert self.folder.is_dir(), f"{where}: there is no folder {self.folder}"
            return Ended(words, 0, "", "")
        if words[:3] == ["pip", "install", "-e"]:
            return self._install(self.folder / rest[2].partition("[")[0])
        if program == "pytest":
            return self._process([script("pytest"), "-q", "-p", "no:cacheprovider", *rest])
        raise AssertionError(f"{where}: {program}: not a command that a page may use")

    def _install(self, project: Path) -> Ended:
        """The real pip, into a folder of its own: its entry points are found there, its code where it lies."""
        prefix = self.start / ".installed"
        ended = self._process([*PIP, "--prefix", str(prefix), "-e", str(project)])
        assert ended.returncode == 0, f"pip install -e {project.name}\n{ended.stdout}{ended.stderr}"
        [site] = {path.parent for path in prefix.rglob("*.dist-info")}
        self.environment["PYTHONPATH"] = os.pathsep.join([str(site), str(project.resolve())])
        return Ended(ended.args, 0, "", "")

    def _python(self, code: str, where: str) -> None:
        self.err = ""
        if self._here is None:
            ended = self._process([sys.executable, "-c", code])
            assert ended.returncode == 0, f"{where}\n{ended.stderr}"
            self.out = ended.stdout
            return
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, where, "exec"), {"__name__": "__main__"})
        self.out = out.getvalue()

    def _process(self, command: list[str]) -> Ended:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )


def script(name: str) -> str:
    """A command of this environment as a reader calls it; ``python -m`` would see the folder's modules as well."""
    return str(Path(sys.executable).with_name(name))


def edit(path: Path, diff: str, where: str) -> None:
    """Apply a diff without line numbers; what is replaced must be there once."""
    for hunk in re.split(r"^\.\.\.\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), f"{where}: a line of a diff begins with '+', '-' or ' '"
        old, new = ("".join(line[1:] or "\n" for line in lines if line[0] != skip) for skip in "+-")
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{where}: these lines are {text.count(old)} times in {path.name}:\n{old}"
        path.write_text(text.replace(old, new), encoding="utf-8")


def assert_printed(page: str, streams: Sequence[str], where: str) -> None:
    """What a page shows is the whole of one of the streams, white space and empty lines aside."""
    pattern = "".join(_line_pattern(line) for line in _lines(page))
    texts = ("".join(f"{line}\n" for line in _lines(stream)) for stream in streams)
    assert any(re.fullmatch(pattern, text) for text in texts), f"{where}: printed was\n{streams[-1]}"


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _line_pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*?"
    pattern = re.escape(line).replace("…", ".*?")
    return re.sub(r"\d+\\\.\d+(?=(\\ )?s\b)", r"\\d+\\.\\d+", pattern) + r"\n"
