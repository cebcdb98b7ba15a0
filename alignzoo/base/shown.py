"""A stranger's text in a message: no control characters, and not longer than a reader wants."""

from __future__ import annotations

import re
import reprlib
from typing import Any

LONGEST = 80
"""Characters of a value in a message."""
LONGEST_MESSAGE = 4000
# All that moves a cursor, colours, rings or reverses text: C0, DEL and C1, the bidirectional overrides, and lone
# surrogates, which no terminal can encode. Line ends and tabs are text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with its control characters escaped, as ``\\x1b``."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_json(text: str) -> str:
    """The same for JSON, whose strings are the only place such characters can be in."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def clipped(text: str) -> str:
    """A message without its middle where it is longer than anybody reads."""
    return (
        text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 4 :]}"
    )


def shown(value: Any) -> str:
    """A value as ``repr`` gives it, its middle left out where it is long; nested values are cut before they unfold."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 4, 6, 6

    def repr(self, x: Any) -> str:
        text = super().repr(x)
        return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}...{text[-LONGEST // 4 :]}"


_SHORT = _Short()
