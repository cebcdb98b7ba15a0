"""Markdown pages as the tests see them: fenced blocks with the marker in front of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)$")
_MARKER = re.compile(r"^<!-- (.+?) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``marker`` is the text of the HTML comment in the line before it, or empty."""

    language: str
    marker: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[str, str, int] | None = None
    body: list[str] = []
    last = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            marker = _MARKER.match(last)
            opened, body = (fence[1], marker[1] if marker else "", number), []
        elif opened is not None and line == "```":
            found.append(Block(opened[0], opened[1], "\n".join(body) + "\n", opened[2]))
            opened = None
        elif opened is not None:
            body.append(line)
        last = line
    assert opened is None, f"{page}: a block is not closed"
    return found


def commands(text: str) -> list[str]:
    """The command lines of a block, continuation lines joined, comments left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.partition("  # ")[0].strip() for line in joined.splitlines() if line.strip() and line[0] != "#"]


def text_of(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """The text of a page below one of its headings."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text_of(name), re.M | re.S)
    assert found, f"{name}.md has no heading {heading!r}"
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all rows of tables, without their heads."""
    for line in re.findall(r"^\|(.+)\|$", re.sub(r"^\|.+\|\n\| ---.+\n", "", text, flags=re.M), flags=re.M):
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)
