"""Results that grow line by line and survive any kind of end: what was written is never computed again.

A journal is a JSONL file beside a sealed ``.json`` that says what its lines depend on. A line counts once its newline
is on disk; a torn last line is dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alignzoo.base.disk import stating
from alignzoo.base.files import check_links, write_json, write_text
from alignzoo.base.stored import read_sealed, sealed
from alignzoo.errors import DamagedError, UsageError

_SECONDS_TO_DISK = 2.0
"""At most this much work is lost to a power cut; a killed process loses none."""
_BY = "by"
_AGAIN = "start the command again: it resumes"


@dataclass(frozen=True)
class Journal:
    """A growing JSONL file.

    Attributes:
        path: the ``.jsonl`` file.
        about: what its lines depend on, JSON-able: lines of another ``about`` are not reused.
        by: who wrote it, for messages.
    """

    path: Path
    about: Mapping[str, Any]
    by: str = ""

    @property
    def about_path(self) -> Path:
        """The sealed file beside it."""
        return self.path.with_suffix(".json")

    def differences(self) -> list[str]:
        """What an existing journal's ``about`` says otherwise, ``name there, not here`` each; nothing if it has no
        lines.

        Raises:
            DamagedError: it cannot be read.
        """
        if not self.lines():
            return []
        there = read_sealed(self.about_path)
        by = there.pop(_BY, "")
        found = different(there, self.about)
        return [f"{_BY} {by}, not {self.by}", *found] if found and by != self.by else found

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines, in the order they were written.

        Raises:
            DamagedError: a line is not a JSON object.
        """
        return read_lines(self.path) if os.path.lexists(self.path) else []

    def begin(self) -> list[dict[str, Any]]:
        """Create the journal if there is none, drop a torn last line, and return the complete ones.

        Raises:
            UsageError: it is about something else.
            DamagedError: it cannot be read.
            AlignzooError: it cannot be written.
        """
        check_links(self.path.parent, [self.path.name, self.about_path.name])
        differing = self.differences()
        if differing:
            raise UsageError(
                f"{self.path} does not belong to this evaluation: {'; '.join(differing)}",
                hint="choose another folder with --out, or replace it with --overwrite",
            )
        lines = self.lines()
        with stating(self.path, "choose another folder with --out"):
            if not lines:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.about_path, sealed({**self.about, **({_BY: self.by} if self.by else {})}))
            _drop_torn_line(self.path)
        return lines

    def remove(self) -> None:
        """Delete the journal."""
        for path in (self.path, self.about_path):
            path.unlink(missing_ok=True)

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """For writing lines; each is safe from the death of this process as soon as it is written."""
        with stating(self.path, _AGAIN):
            file = open(self.path, "a", encoding="utf-8", opener=_itself)  # noqa: SIM115
        with file:
            appender = Appender(file, self.path)
            try:
                yield appender
            finally:
                appender.sync()

    def rewrite(self, lines: list[dict[str, Any]]) -> None:
        """Replace all lines, atomically."""
        with stating(self.path, _AGAIN):
            write_text(self.path, "".join(_line(line) for line in lines))


class Appender:
    """Appends lines to an open file."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file = file
        self._path = path
        self._synced = time.monotonic()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        with stating(self._path, _AGAIN):
            self._file.write(_line(line))
            self._file.flush()
        if time.monotonic() - self._synced > _SECONDS_TO_DISK:
            self.sync()

    def sync(self) -> None:
        """Wait until everything is on disk."""
        with stating(self._path, _AGAIN):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file of objects; a torn last one is left out.

    Raises:
        DamagedError: it cannot be read, or a line is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from error
    lines = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedError(path, f"line {number}: {error}", hint="delete it and what is beside it") from error
        if not isinstance(value, dict):
            raise DamagedError(path, f"line {number} is not a JSON object", hint="delete it and what is beside it")
        lines.append(value)
    return lines


def different(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The entries that two (nested) records do not share: ``name: there, not here`` each."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        one, other = there.get(name), json.loads(json.dumps(here.get(name)))
        if isinstance(one, dict) and isinstance(other, dict):
            found += different(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name} {_shown(one)}, not {_shown(other)}")
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _itself(path: str, flags: int) -> int:
    """Open without following a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
