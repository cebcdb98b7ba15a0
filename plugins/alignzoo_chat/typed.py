"""What the user types: a line, or several lines as one message."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

PROMPT, FURTHER = "you> ", "...  "
FENCE = '"""'
"""A line that begins with it begins a message of several lines; the next one that ends with it ends that."""


class Typed:
    """The messages and commands that come from stdin.

    Args:
        words: commands to complete with Tab.
        coloured: whether the prompt is.
    """

    def __init__(self, words: Sequence[str], *, coloured: bool) -> None:
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._coloured = coloured
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # half a character would fail in the tokenizer
        if self._terminal:
            with contextlib.suppress(ImportError):  # a Python without it
                _edit_lines(words)

    def next(self) -> str | None:
        """The next message or command, without spaces around it; empty for an empty line; None at the end.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        line = self._line(PROMPT)
        if line is None:
            return None
        if line.lstrip().startswith(FENCE):
            return self._fenced(line.lstrip()[len(FENCE) :])
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            following = self._line(FURTHER)
            if following is None:
                break
            lines.append(following)
        return "\n".join(lines).strip()

    def answer(self, question: str) -> str | None:
        """The answer to a question; None if nobody can be asked, or gave none."""
        if not self._terminal:
            return None
        try:
            return input(f"{question} ").strip()
        except (EOFError, KeyboardInterrupt):
            return None

    def _fenced(self, first: str) -> str:
        lines, line = list[str](), first
        while not line.rstrip().endswith(FENCE):
            lines.append(line)
            following = self._line(FURTHER)
            if following is None:
                return "\n".join(lines).strip()
            line = following
        return "\n".join([*lines, line.rstrip()[: -len(FENCE)]]).strip()

    def _line(self, prompt: str) -> str | None:
        if not self._terminal:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        # \x01 and \x02 tell readline which characters take no space.
        shown = f"\x01\x1b[1;36m\x02{prompt}\x01\x1b[0m\x02" if self._coloured else prompt
        try:
            return input(shown)
        except EOFError:
            return None


def _edit_lines(words: Sequence[str]) -> None:
    """Line editing and history, as long as the process lives, and Tab for commands."""
    import readline

    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text)] if text.startswith("/") else []
        return found[state] if state < len(found) else None

    completer: Callable[[str, int], str | None] = complete
    readline.set_completer(completer)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
