"""Texts are tokenised in pieces, while those of later rows are rendered; the result is that of each row alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from data_examples import CHATML, explicit
from datasets import Dataset

from alignzoo.data import tokens
from alignzoo.data.formats import choose_layout
from alignzoo.data.rows import Drop, PreferenceRow, PromptRow, canonical
from alignzoo.data.tokenise_rows import TokeniseRows
from alignzoo.data.tokens import RowTokenizer
from alignzoo.errors import ModelError

LONG = 10_000


def many_rows() -> list[PromptRow]:
    """Rows of different lengths; every fourth is dropped, as empty or as too long."""
    words = [" yes" * (index + 1) for index in range(13)]
    rows = [canonical(PreferenceRow("Hi?", word, word + " no")) for word in words]
    rows[3] = replace(rows[3], responses=("<|im_end|>", " no"))
    rows[7] = replace(rows[7], prompt="Hi?" * 60)
    rows[11] = replace(rows[11], prompt="Hi?" * 10_000)
    return rows


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_rows_are_tokenised_as_each_one_alone(chatml: Any, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many_rows()
    alone = [RowTokenizer(chatml).tokenize([row], LONG, 100)[0] for row in rows]
    assert [index for index, row in enumerate(alone) if isinstance(row, Drop)] == [3, 7, 11]
    monkeypatch.setattr(tokens, "_ROWS_AT_ONCE", at_once)
    assert RowTokenizer(chatml).tokenize(rows, LONG, 100) == alone


def test_texts_are_rendered_while_earlier_ones_are_tokenised(chatml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, rendered, encode, render = many_rows(), threading.Event(), RowTokenizer.encode, tokens.render_row

    def encode_once_all_are_rendered(self: RowTokenizer, texts: Sequence[str]) -> list[list[int]]:
        assert rendered.wait(30), "the last row is rendered only after the first ones are tokenised"
        return encode(self, texts)

    def render_row(row: PromptRow, *given: Any) -> Any:
        if row is rows[-1]:
            rendered.set()
        return render(row, *given)

    monkeypatch.setattr(tokens, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(RowTokenizer, "encode", encode_once_all_are_rendered)
    monkeypatch.setattr(tokens, "render_row", render_row)
    assert len(RowTokenizer(chatml).tokenize(rows, LONG, 100)) == len(rows)


def test_a_failing_template_ends_tokenising_at_once(chatml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_ROWS_AT_ONCE", 2)
    chatml.chat_template = CHATML + "{{ 1 // (9 - messages[1]['content'].split() | length) if messages | length > 1 }}"
    threads = threading.active_count()
    with pytest.raises(ModelError, match="chat template fails"):
        RowTokenizer(chatml).tokenize(many_rows(), LONG, 100)
    assert threading.active_count() == threads


def test_the_vocabulary_is_read_once_for_all_blocks(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    kind, rows = type(gpt2), explicit(4)
    get_vocab = kind.get_vocab
    monkeypatch.setattr(kind, "get_vocab", lambda self: reads.append(1) or get_vocab(self))
    tokenise = TokeniseRows(choose_layout(Dataset.from_list(rows), None), gpt2, 64, 32, None)
    for row in rows:
        tokenise({name: [value] for name, value in row.items()}, [0])
    assert len(reads) == 1
