"""Malformed rows are dropped, counted and located, or with --data.strict refused; one bad row never costs the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_examples import assistant, explicit, user
from datasets import Dataset
from heard import Heard

from alignzoo.data.formats import layouts
from alignzoo.data.malformed import malformed_warning, refuse_malformed
from alignzoo.data.parts import load_parts
from alignzoo.data.prepare import Prepared, prepare
from alignzoo.data.rows import FieldError
from alignzoo.errors import DataError
from alignzoo.plan.settings import Settings

Jsonl = Callable[..., str]


def made(source: str, tokenizer: Any, **options: Any) -> Prepared:
    return prepare(source, tokenizer, max_length=64, max_prompt_length=32, **options)


def located(prepared: Prepared) -> str:
    """The list that --data.strict prints."""
    with pytest.raises(DataError) as error:
        refuse_malformed(prepared)
    return str(error.value)


def test_a_null_and_a_missing_field_are_dropped_counted_and_located(jsonl: Jsonl, gpt2: Any) -> None:
    rows = explicit(4)
    path = jsonl([rows[0], "", {**rows[1], "chosen": None}, rows[2], {"prompt": "?", "chosen": "x"}])
    prepared = made(path, gpt2)
    assert prepared.summary.kept == 2
    assert {reason: entry.count for reason, entry in prepared.summary.dropped.items()} == {
        "malformed-chosen": 1,
        "malformed-rejected": 1,
    }
    warning = malformed_warning(prepared)
    assert warning is not None
    assert warning.startswith(f"2 malformed rows of 4 dropped, the first at {path}:3: field 'chosen' is missing")
    assert f"{path}:3: field 'chosen' is missing" in located(prepared)
    assert f"{path}:5: field 'rejected' is missing" in located(prepared)


def test_a_tool_call_without_text_costs_its_row_only(jsonl: Jsonl, chatml: Any) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    rows = [{"prompt": [user(f"{n}?")], "chosen": [assistant("y")], "rejected": [assistant("n")]} for n in range(3)]
    prepared = made(jsonl([*rows, {**rows[0], "chosen": [call]}]), chatml)
    assert prepared.summary.kept == 3
    assert list(prepared.summary.dropped) == ["malformed-chosen.content"]
    assert "pairs.jsonl:4: field 'chosen[0].content' is missing" in located(prepared)


@pytest.mark.parametrize("content", [5, True, {"a": 1}, ["text"], 1e999])
def test_content_that_is_no_text_costs_its_row_only(content: Any, jsonl: Jsonl, chatml: Any) -> None:
    rows = [{"prompt": [user(f"{n}?")], "chosen": [assistant("y")], "rejected": [assistant("n")]} for n in range(3)]
    prepared = made(jsonl([rows[0], {**rows[1], "rejected": [{**assistant(""), "content": content}]}]), chatml)
    assert prepared.summary.kept == 1
    assert list(prepared.summary.dropped) == ["malformed-rejected.content"]


@pytest.mark.parametrize("number", ["1" + "0" * 400, "NaN", '"high"', "true"])
def test_a_score_that_is_no_finite_number_costs_its_row_only(number: str, jsonl: Jsonl, gpt2: Any) -> None:
    scored = [json.dumps({**row, "score_chosen": 2.5, "score_rejected": 0.5}) for row in explicit(3)]
    prepared = made(jsonl([scored[0], scored[1].replace("2.5", number)]), gpt2)
    assert prepared.summary.kept == 1
    assert list(prepared.summary.dropped) == ["malformed-score_chosen"]


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_the_reader_refuses_names_its_line(number: str, jsonl: Jsonl, gpt2: Any) -> None:
    scored = json.dumps({**explicit(1)[0], "score_chosen": 2.5, "score_rejected": 0.5})
    with pytest.raises(DataError, match=rf"pairs\.jsonl:2: not valid JSON: the number {number} is not finite"):
        made(jsonl([scored, scored.replace("2.5", number)]), gpt2)


@pytest.mark.parametrize("name", ["explicit", "conversational"])
def test_half_a_surrogate_pair_is_no_text(name: str) -> None:
    half = " half \ud800 pair"
    row: dict[str, Any] = {"prompt": "?", "chosen": half, "rejected": "n"}
    if name == "conversational":
        row = {"prompt": [user("?")], "chosen": [assistant(half)], "rejected": [assistant("n")]}
    with pytest.raises(FieldError, match="surrogate"):
        next(one for one in layouts(own=True) if one.name == name).normalise(row)


def test_rows_of_workers_and_of_parquet_are_located_too(jsonl: Jsonl, gpt2: Any, tmp_path: Path) -> None:
    rows = explicit(6)
    parquet = tmp_path / "pairs.parquet"
    Dataset.from_list([*rows[:4], {**rows[4], "prompt": None}]).to_parquet(parquet)
    assert "pairs.parquet, row 4 (counted from 0): field 'prompt' is missing" in located(made(str(parquet), gpt2))
    del rows[4]["rejected"]
    assert "pairs.jsonl:5: field 'rejected' is missing" in located(made(jsonl(rows), gpt2, workers=2))


def test_strict_refuses_and_lists_all_also_from_the_cache(jsonl: Jsonl, gpt2: Any) -> None:
    rows: list[Any] = [*explicit(40), *({**row, "chosen": None} for row in explicit(30))]
    heard = Heard()
    settings = {"data": jsonl(rows), "eval_share": 0.1}
    load_parts(Settings(**settings), gpt2, needs=(), report=heard)
    assert any("30 malformed rows of 70 dropped" in warning for warning in heard.warnings)
    with pytest.raises(DataError, match="30 of 70 rows are malformed") as error:
        load_parts(Settings(**settings, data_strict=True), gpt2, needs=(), report=heard)
    assert "pairs.jsonl:41: field 'chosen' is missing" in str(error.value)
    assert "… and 10 more" in str(error.value)
