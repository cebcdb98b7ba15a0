"""General texts: every kind of row becomes the tokens that the model would read, every fault names its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_examples import tokenized
from datasets import Dataset
from heard import Heard
from transformers import PreTrainedTokenizerFast

from alignzoo.data.rows import PreferenceRow
from alignzoo.data.texts import load_texts, training_texts
from alignzoo.errors import DataError, ModelError

ASK, ANSWER = "What is the capital of France?", "It is Paris."
TURNS = [{"role": "user", "content": ASK}, {"role": "assistant", "content": ANSWER}]


def _write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def _load(source: str, tokenizer: Any, count: int = 9, seed: int = 0) -> tuple[list[list[int]], list[str]]:
    notes = Heard()
    return load_texts(source, count, tokenizer=tokenizer, seed=seed, report=notes), notes.said


def test_a_conversation_reads_as_it_does_in_a_pair(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pair = tokenized(PreferenceRow(ASK, ANSWER, "No."), chatml, 999, 500)
    whole = [*pair.prompt_ids, *pair.response_ids[0]]  # type: ignore[union-attr]
    rows = [{"messages": TURNS}, {"prompt": ASK, "response": ANSWER}]
    for row in rows:
        [ids], _ = _load(_write(tmp_path / "texts.jsonl", [row]), chatml)
        assert ids[: len(whole)] == whole
        assert chatml.decode(ids[len(whole) :]).strip() == ""


def test_text_is_tokenised_as_it_stands(
    chatml: PreTrainedTokenizerFast, llama: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    source = _write(tmp_path / "texts.jsonl", [{"text": "bread and salt"}, {"text": "  "}, {"text": "water"}])
    found, notes = _load(source, chatml)
    assert [chatml.decode(ids) for ids in found] == ["bread and salt", "water"]
    assert notes == [f"{source}: only 2 of the 9 requested texts"]
    with_bos, _ = _load(source, llama)
    assert all(ids[0] == llama.bos_token_id and llama.bos_token_id not in ids[1:] for ids in with_bos)


def test_a_text_file_has_one_text_per_line(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    found, _ = _load(_write(tmp_path / "texts.txt", ["bread", "", "  ", "salt and water"]), chatml)
    assert [chatml.decode(ids) for ids in found] == ["bread", "salt and water"]


def test_rows_of_several_kinds_in_one_file(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = [{"text": "bread"}, {"messages": TURNS}, {"prompt": ASK, "response": ANSWER}]
    found, _ = _load(_write(tmp_path / "texts.jsonl", rows), chatml)
    assert len(found) == 3
    assert found[1] == found[2]


def test_a_draw_is_by_seed(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    source = _write(tmp_path / "texts.txt", [f"number {n}" for n in range(40)])
    first, notes = _load(source, chatml, 5)
    assert len(first) == 5
    assert not notes
    assert _load(source, chatml, 5)[0] == first
    assert _load(source, chatml, 5, seed=1)[0] != first


def test_plain_prompts_need_no_template(llama: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    llama.chat_template = None
    found, _ = _load(_write(tmp_path / "texts.jsonl", [{"prompt": "bread ", "response": "and salt"}]), llama)
    assert llama.decode(found[0], skip_special_tokens=True).strip() == "bread and salt"
    with pytest.raises(ModelError, match="no chat template"):
        _load(_write(tmp_path / "chat.jsonl", [{"messages": TURNS}]), llama)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": 5}, r":2: field 'text' is a number, expected text"),
        ({"story": "x"}, r":2: field 'text' is missing"),
        ({"prompt": "x"}, r":2: field 'response' is missing"),
        ({"messages": [{"role": "user"}]}, r":2: field 'messages\[0\].content' is missing"),
        ("{no json", r":2: not valid JSON"),
    ],
)
def test_a_fault_names_file_line_and_field(
    row: Any, said: str, chatml: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    good = {"text": "good"} if not (isinstance(row, dict) and "text" in row) else {"prompt": "a", "response": "b"}
    with pytest.raises(DataError, match=r"texts\.jsonl" + said):
        _load(_write(tmp_path / "texts.jsonl", [good, row]), chatml)


def test_a_conversation_that_the_template_refuses(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    chatml.chat_template = "{{ raise_exception('two turns of one speaker') }}"
    with pytest.raises(DataError, match=r"texts\.jsonl:1: the chat template rejects the conversation: two turns"):
        _load(_write(tmp_path / "texts.jsonl", [{"messages": TURNS}]), chatml)


def test_files_that_hold_nothing(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    for name, rows in (("a.txt", [" "]), ("b.jsonl", [{"text": " "}]), ("c.jsonl", [{"messages": []}])):
        with pytest.raises(DataError, match="contains no texts"):
            _load(_write(tmp_path / name, rows), chatml)
    for name in ("none.txt", "none.jsonl"):
        with pytest.raises(DataError, match=r"none\.\w+: [Nn]o such file"):
            _load(str(tmp_path / name), chatml)
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:2: not UTF-8 text \(byte 0xe9\)"):
        _load(str(tmp_path / "latin.txt"), chatml)


def test_training_texts_are_prompts_with_their_chosen_responses() -> None:
    pairs = Dataset.from_list([{"prompt_ids": [n], "response_ids": [[n, 7], [9]]} for n in range(20)])
    notes = Heard()
    some = training_texts(pairs, 3, seed=0, report=notes)
    assert len(some) == 3
    assert all(text == [text[0], text[0], 7] for text in some)
    assert not notes.said
    assert len(training_texts(pairs, 99, seed=0, report=notes)) == 20
    assert notes.said == ["only 20 training rows for the 99 requested texts"]
