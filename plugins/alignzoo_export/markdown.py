"""Markdown from facts: what comes from data, models and plans is escaped, so that it is text and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alignzoo.base.shown import printable

_MEANING = re.compile(r"([\\`*_\[\]<>|~$&]|^[-+=#](?!\d))")
_LONGEST = 400
"""Characters of a text from outside."""


def text(value: object) -> str:
    """A text on one line, with every character escaped that means something there in Markdown or HTML."""
    line = " ".join(printable(str(value)).split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return _MEANING.sub(r"\\\1", line).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def code(value: object) -> str:
    """A text as inline code, on one line."""
    line = " ".join(printable(str(value)).split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else "–"


def block(content: str, language: str = "") -> str:
    """A block of code, whatever fences its content has."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(content)}\n{fence}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Sequence[str]) -> str:
    """A list; the lines are Markdown already."""
    return "\n".join(f"- {line}" for line in lines)
