"""Layouts of plugins: each shape by its own row, and what a layout gives wrongly is said with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alignzoo.data.layout import Layout
from alignzoo.data.rows import Drop, PreferenceRow, RankedRow, UnpairedRow
from alignzoo.data.tokenise_rows import TokeniseRows
from alignzoo.errors import DataError

PAIR, ONE, RANKED = PreferenceRow("Q?", "yes", "no"), UnpairedRow("Q?", "yes", True), RankedRow("Q?", ["a", "b", "c"])


def tokenised(tokenizer: Any, normalise: Callable[[Any], Any], **facts: Any) -> list[dict[str, Any]]:
    layout = Layout("own", "q: text", lambda row: True, normalise, version="dist:1", **facts)
    rows: list[dict[str, Any]] = TokeniseRows(layout, tokenizer, 64, 32, None)({"q": ["Q?"]}, [0]).to_pylist()
    return rows


@pytest.mark.parametrize(("shape", "row"), [("pairs", PAIR), ("unpaired", ONE), ("ranked", RANKED)])
def test_a_layout_of_each_shape(shape: str, row: Any, gpt2: Any) -> None:
    [made] = tokenised(gpt2, lambda _: row, shape=shape)
    assert made["reason"] == ""
    assert len(made["response_text"]) == {"pairs": 2, "unpaired": 1, "ranked": 3}[shape]
    assert made.get("label") == (1 if shape == "unpaired" else None)


def test_optional_fields_that_a_layout_gives_whatever_its_columns(gpt2: Any) -> None:
    row = PreferenceRow("Q?", "yes", "no", chosen_score=3, rejected_score=1, group=7)  # type: ignore[arg-type]
    [made] = tokenised(gpt2, lambda _: row, gives=("chosen_score", "rejected_score", "group"))
    assert (made["score"], made["group"]) == ([3.0, 1.0], "7")
    assert "safe" not in made
    [made] = tokenised(gpt2, lambda _: RankedRow("Q?", ["a", "b"], safe=[True, False]), shape="ranked", gives=("safe",))
    assert made["safe"] == [True, False]


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        ("pairs", ONE, "an? UnpairedRow for a row, expected PreferenceRow or Drop"),
        ("unpaired", PAIR, "a PreferenceRow for a row, expected UnpairedRow or Drop"),
        ("ranked", None, "a NoneType for a row, expected RankedRow or Drop"),
        ("pairs", PreferenceRow("Q?", 5, "no"), "chosen as int, expected text or a list of messages"),  # type: ignore[arg-type]
        ("unpaired", UnpairedRow("Q?", None, True), "completion as NoneType, expected text"),  # type: ignore[arg-type]
        ("ranked", RankedRow("Q?", ["a"]), "responses that are not a list of two or more"),
        ("ranked", RankedRow("Q?", "ab"), "responses that are not a list of two or more"),
        ("ranked", RankedRow("Q?", ["a", 5]), "responses that are not all text or lists of messages"),  # type: ignore[list-item]
        ("ranked", RankedRow("Q?", ["a", "b"], scores=[1.0]), "1 scores for 2 responses"),
        ("ranked", Drop(""), "the reason '' for dropping a row"),
    ],
)
def test_what_a_layout_gives_wrongly_is_said(shape: str, given: Any, said: str, gpt2: Any) -> None:
    with pytest.raises(DataError, match=rf"row 0 .*: layout own of dist:1 returned {said}"):
        tokenised(gpt2, lambda _: given, shape=shape)


def test_a_label_that_is_no_bool_is_said(gpt2: Any) -> None:
    with pytest.raises(DataError, match="label as str, expected True or False"):
        tokenised(gpt2, lambda _: UnpairedRow("Q?", "yes", "rejected"), shape="unpaired")  # type: ignore[arg-type]
