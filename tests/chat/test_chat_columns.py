"""Responses side by side: wrapped, drawn row by row, never more than the terminal's width."""

from __future__ import annotations

import re

from alignzoo_chat.columns import BETWEEN, Columns, wrapped
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

PIECES = st.lists(st.text("ab é日\n", max_size=9), max_size=30)


def shown(output: list[str]) -> list[str]:
    """The rows of a terminal after this output: a carriage return goes back to the start of the row."""
    rows = "".join(output).replace("\x1b[K", "").split("\n")
    return [row.rpartition("\r")[2] for row in rows]


def test_lines_break_at_spaces_and_long_words_are_cut() -> None:
    assert wrapped("the quick brown fox", 10) == ["the quick", "brown fox"]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("    indented code stays", 14) == ["    indented", "code stays"]
    assert wrapped("日本語日本語", 7) == ["日本語", "日本語"]
    assert wrapped("", 5) == [""]


def test_columns_grow_together_and_a_finished_one_is_left_empty() -> None:
    output: list[str] = []
    columns = Columns(output.append, 2, 60)
    columns.add(0, "left one\nleft two\nleft three")
    columns.add(1, "right one\nright")
    columns.end(1)
    columns.add(0, " and more")
    columns.close()
    rows = [re.split(r" *│ ?", row) for row in shown(output)]
    assert rows == [["left one", "right one"], ["left two", "right"], ["left three and more", ""], [""]]


@settings(max_examples=30)
@given(PIECES, PIECES)
def test_every_character_is_shown_once_and_no_row_is_too_wide(left: list[str], right: list[str]) -> None:
    output: list[str] = []
    columns = Columns(output.append, 2, 50)
    for one, other in zip(left, right, strict=False):
        columns.add(0, one)
        columns.add(1, other)
    columns.close()
    said = ["".join(side[: min(len(left), len(right))]) for side in (left, right)]
    rows = shown(output)
    assert all(cell_len(row) < 50 for row in rows)
    split = [row.split(BETWEEN.strip()) for row in rows if "│" in row]
    for at, text in enumerate(said):
        assert re.sub(r"\s", "", "".join(row[at] for row in split)) == re.sub(r"\s", "", text)


@settings(max_examples=30)
@given(PIECES)
def test_pieces_wrap_as_the_whole_text_does(pieces: list[str]) -> None:
    whole, cut = list[str](), list[str]()
    for output, parts in ((whole, ["".join(pieces)]), (cut, pieces)):
        columns = Columns(output.append, 1, 30)
        for part in parts:
            columns.add(0, part)
        columns.close()
    assert [row.rstrip() for row in shown(whole)] == [row.rstrip() for row in shown(cut)]
