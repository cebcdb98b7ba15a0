"""``generate --out FILE.jsonl``: a line per response, in the order of the prompts once all are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.base.stored import read_sealed
from alignzoo.errors import DamagedError, UsageError
from alignzoo.evaluate.journal import Journal
from alignzoo.generate.decoding import Response
from alignzoo_chat.prompt_file import Prompt

Key = tuple[int, int]
"""A prompt's number and a sample's, both from 0."""


def line_of(key: Key, prompt: Prompt, response: Response, model: str) -> dict[str, Any]:
    """The line of a response."""
    index, sample = key
    return {
        "index": index,
        "sample": sample,
        "id": prompt.id,
        prompt.column: prompt.given,
        "response": response.text,
        "tokens": response.tokens,
        "ended": response.ended,
        "model": model,
    }


def key_of(line: Mapping[str, Any], path: Path) -> Key:
    """Which response a line is.

    Raises:
        DamagedError: it does not say.
    """
    index, sample = line.get("index"), line.get("sample")
    if isinstance(index, int) and isinstance(sample, int):
        return index, sample
    raise DamagedError(path, "a line has no index and sample", hint="replace it with --overwrite")


def check_out(path: Path, prompts: Path | None, *, overwrite: bool) -> None:
    """Check a file to write responses to, before anything is loaded.

    Args:
        prompts: the file of the prompts, which must not be replaced.

    Raises:
        UsageError: it is no ``.jsonl`` file, it cannot be created there, or it was not written by this command.
    """
    if path.suffix != ".jsonl":
        raise UsageError(f"--out {path}: responses are JSON lines", hint=f"name it {path.stem or 'responses'}.jsonl")
    beside = path.with_suffix(".json")
    if prompts is not None and prompts.absolute() in (path.absolute(), beside.absolute()):
        raise UsageError(f"--out {path} would replace the prompts", hint="name another file")
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"--out {path}: {problem}", hint="name a file in a folder that exists")
    if beside.exists() and not _is_sealed(beside):  # a file of the user's, which --overwrite does not mean
        raise UsageError(f"{beside} exists and is not of this command", hint="name another --out")
    if path.exists() and not beside.exists() and not overwrite:
        raise UsageError(f"{path} exists and is not of this command", hint="name another --out, or add --overwrite")


def _is_sealed(path: Path) -> bool:
    try:
        read_sealed(path)
    except DamagedError:
        return False
    return True


class ResponsesFile:
    """A growing file of responses.

    Args:
        about: what they depend on.
        keys: the responses it will have, in order.
        model: its name, for messages.

    Attributes:
        journal: the file.
        done: the lines that it has already.

    Raises:
        UsageError: it exists and is about something else.
        DamagedError: it cannot be read.
        AlignzooError: it cannot be written.
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any], keys: Sequence[Key], *, model: str, overwrite: bool
    ) -> None:
        self.journal = Journal(path, about, by=model)
        if overwrite:
            self.journal.remove()
        differing = self.journal.differences()
        if differing:
            raise UsageError(
                f"{path} has responses to something else: {'; '.join(differing)}",
                hint="name another --out, or replace it with --overwrite",
            )
        wanted = set(keys)
        self.done = {key: line for line in self.journal.begin() if (key := key_of(line, path)) in wanted}

    def finish(self) -> None:
        """Put the lines into the order of the prompts.

        Raises:
            DamagedError, AlignzooError: it cannot be read, or written.
        """
        lines = self.journal.lines()
        ordered = sorted(lines, key=lambda line: key_of(line, self.journal.path))
        if ordered != lines:
            self.journal.rewrite(ordered)
