"""Untrusted text in messages: control characters escaped, long values shortened."""

from __future__ import annotations

import re
import reprlib
from typing import Any

LONGEST = 80
"""Characters of a value in a message."""
LONGEST_MESSAGE = 4000
# Whatever moves the cursor, changes colours, rings the bell or reverses text: C0, DEL and C1, bidirectional overrides,
# and lone surrogates, which no terminal can encode. Newlines and tabs are allowed.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with its control characters escaped, as ``\\x1b``."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_json(text: str) -> str:
    """The same for JSON, where such characters occur only in strings."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def clipped(text: str) -> str:
    """A message, with its middle cut out if it is too long to read."""
    return (
        text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 4 :]}"
    )


def shown(value: Any) -> str:
    """The ``repr`` of a value, its middle cut out if it is long; nested values are cut before they are expanded."""
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
