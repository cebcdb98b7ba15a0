"""The parts of a page, as data; ``templates/page.html`` draws each by its ``kind``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Note:
    """A sentence that must not be missed: ``warning`` or ``info``."""

    text: str
    level: str = "warning"
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row.

    Attributes:
        figures: the columns, by index, that hold numbers and are aligned on the right.
        strong: the rows, by index, to stand out.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[int] = ()
    strong: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Chart:
    """A chart with its data as a table.

    Attributes:
        name: unique on the page.
        description: what a screen reader says in its place.
        spec: Vega-Lite, without sizes and colours of the surroundings.
    """

    name: str
    title: str
    description: str
    spec: Mapping[str, Any]
    table: Table
    note: str = ""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as many as there is room for."""

    charts: Sequence[Chart]
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Code:
    """A command."""

    text: str
    label: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Sides:
    """Texts to compare, side by side.

    Attributes:
        lead: what they answer.
        texts: titles with texts.
    """

    lead: str
    texts: Sequence[tuple[str, str]]
    facts: str = ""
    kind: ClassVar[str] = "sides"


@dataclass(frozen=True)
class Details:
    """Parts that are shown on request."""

    summary: str
    blocks: Sequence[Any]
    failed: bool = False
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: its anchor.
    """

    name: str
    title: str
    blocks: Sequence[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        figures: the few numbers on top: a label, a value, and a remark.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    figures: Sequence[tuple[str, str, str]] = ()


def charts_in(blocks: Sequence[Any]) -> list[Chart]:
    """All charts among blocks, in order."""
    found: list[Chart] = []
    for block in blocks:
        if isinstance(block, Chart):
            found.append(block)
        elif isinstance(block, Charts):
            found += block.charts
        elif isinstance(block, Details):
            found += charts_in(block.blocks)
    return found
