"""Data of supervised fine-tuning: a prompt and one response without a label, from file to parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_examples import assistant, user
from datasets import Dataset
from heard import Heard

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import collate
from alignzoo.data.formats import choose_layout
from alignzoo.data.layout import Layout
from alignzoo.data.parts import Parts, load_parts
from alignzoo.data.prepare import prepare
from alignzoo.data.probe_rows import SAFE, UNKNOWN, UNSAFE, safety_labels
from alignzoo.data.rows import DemonstrationRow, SourceRow, UnpairedRow
from alignzoo.data.shapes import readable
from alignzoo.data.tokenise_rows import TokeniseRows
from alignzoo.errors import DataError
from alignzoo.lazy import torch
from alignzoo.plan.settings import Settings

TEXT = {"prompt": "P?", "completion": "c"}
CHAT = {"prompt": [user("P?")], "completion": [assistant("c")]}
WHOLE = {"messages": [user("P?"), assistant("c")]}


def demonstrations(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"How far is tower {n}?", "completion": f" Far {n}.", **more} for n in range(count)]


def load(tokenizer: Any, rows: list[dict[str, Any]], needs: Any = (), tmp: Path | None = None, **more: Any) -> Parts:
    assert tmp is not None
    Dataset.from_list(rows).to_json(str(path := tmp / "demos.jsonl"))
    settings = Settings(model="m", data=str(path), **{"eval_share": 0.2, **more})
    return load_parts(settings, tokenizer, needs=frozenset(needs), reads={"sft": "chosen"}, report=Heard())


def prepared(rows: list[dict[str, Any]], tokenizer: Any) -> Any:
    return prepare(Dataset.from_list(rows), tokenizer, max_length=64, max_prompt_length=32)


PAIR = {"chosen": "P? c", "rejected": "P? r"}


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (TEXT, "prompt-completion"),
        (CHAT, "prompt-completion-conversational"),
        (WHOLE, "messages"),
        ({**WHOLE, "prompt": "P?", "prompt_id": "0"}, "messages"),  # HuggingFaceH4/ultrachat_200k
        ({**TEXT, "label": True}, "unpaired"),
        ({**CHAT, "label": False}, "unpaired-conversational"),
        ({**TEXT, **PAIR}, "explicit"),
        ({**WHOLE, "chosen": WHOLE["messages"], "rejected": [user("P?"), assistant("r")]}, "implicit-conversational"),
        ({**TEXT, "responses": ["a", "b"]}, "ranked"),
    ],
)
def test_rows_with_a_preference_are_never_demonstrations(row: dict[str, Any], layout: str) -> None:
    assert choose_layout(Dataset.from_list([row])).name == layout


def test_a_first_row_whose_label_is_null_does_not_make_unpaired_rows_demonstrations() -> None:
    assert choose_layout(Dataset.from_list([{**TEXT, "label": None}, {**TEXT, "label": True}])).name == "unpaired"


def test_a_whole_conversation_beside_prompt_and_completion_is_ambiguous() -> None:
    rows = Dataset.from_list([{**TEXT, **WHOLE}])
    with pytest.raises(DataError, match=r"prompt-completion and messages|messages and prompt-completion"):
        choose_layout(rows)
    assert choose_layout(rows, "messages").name == "messages"


def test_the_last_turn_of_a_conversation_is_the_response() -> None:
    turns = [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c"), assistant("d")]
    layout = choose_layout(Dataset.from_list([{"messages": turns}]))
    assert layout.normalise({"messages": turns}) == DemonstrationRow(turns[:-1], turns[-1:])


def test_one_response_without_a_label(gpt2: Any) -> None:
    rows = demonstrations(4, score=0.5, safe=True, group="g")
    made = prepared([*rows, rows[1]], gpt2)
    assert (made.shape, made.summary.shape) == ("demonstrations", "demonstrations")
    assert "label" not in made.dataset.column_names
    assert made.dataset[2]["response_text"] == [" Far 2."]
    assert (made.dataset[2]["score"], made.dataset[2]["safe"], made.dataset[2]["group"]) == ([0.5], [True], "g")
    assert ("demonstrations kept", "5", "") in made.summary.table()
    assert set(made.summary.counted) == {"boundary-moved", "response-truncated", "prompt-restored", "duplicate"}
    assert set(made.summary.lengths) == {"prompt", "response"}


def test_tokens_are_those_of_the_same_unpaired_rows(chatml: Any, gpt2: Any) -> None:
    for row, tokenizer in ((TEXT, gpt2), (TEXT, chatml), (CHAT, chatml)):
        [one], [labelled] = prepared([row], tokenizer).dataset, prepared([{**row, "label": True}], tokenizer).dataset
        assert labelled == {**one, "label": 1}
    assert prepared([WHOLE], chatml).dataset[0] == prepared([CHAT], chatml).dataset[0]


def test_a_batch_has_no_labels_and_no_order_and_every_response_is_to_be_imitated(gpt2: Any) -> None:
    batch = collate(list(prepared(demonstrations(3), gpt2).dataset), 0, shape="demonstrations")
    assert (batch.labels.tolist(), batch.ranks.tolist(), batch.paired) == ([0, 0, 0], [-1, -1, -1], False)
    responses = ResponseBatch(torch.zeros(3), batch.lengths, batch.prompt, labels=batch.labels, ranks=batch.ranks)
    assert responses.logps[responses.chosen_places()].shape == (3,)
    assert len(responses.pairs()) == 0


def test_losses_that_compare_or_need_labels_are_refused() -> None:
    assert readable("chosen", (), "demonstrations") is None
    assert "nothing to compare" in str(readable("pairs", (), "demonstrations"))
    assert "nothing to compare" in str(readable("lists", (), "demonstrations"))
    assert "demonstrations have no labels" in str(readable("responses", {"labels"}, "demonstrations"))


def test_label_noise_is_refused(gpt2: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"demos.jsonl: --label-noise 0.2 .* demonstrations have no labels") as error:
        load(gpt2, demonstrations(), tmp=tmp_path, label_noise=0.2)
    assert "leave out --label-noise" in str(error.value)


def test_nothing_is_set_aside_for_a_probe_that_could_not_be_trained(gpt2: Any, tmp_path: Path) -> None:
    parts = load(gpt2, demonstrations(), tmp=tmp_path)
    assert parts.held_out is not None
    assert parts.probe_train is parts.probe_validation is None
    assert len(parts.train) + len(parts.held_out) == 60
    with pytest.raises(DataError, match="demonstrations without a column 'safe'") as error:
        load(gpt2, demonstrations(), {"probe"}, tmp_path)
    assert "saved probe" in str(error.value)


def test_safety_flags_give_a_probe(gpt2: Any, tmp_path: Path) -> None:
    rows = [{**row, "safe": n % 2 == 0} for n, row in enumerate(demonstrations(100))]
    parts = load(gpt2, rows, {"probe"}, tmp_path, probe_share=0.6)
    assert parts.probe_train is not None
    assert set(safety_labels(parts.probe_train).tolist()) == {SAFE, UNSAFE}
    assert safety_labels(prepared(demonstrations(3), gpt2).dataset).tolist() == [UNKNOWN] * 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (DemonstrationRow("Q?", "yes"), None),
        (UnpairedRow("Q?", "yes", True), "UnpairedRow for a row, expected DemonstrationRow or Drop"),
        (DemonstrationRow("Q?", 5), "completion as int, expected text"),  # type: ignore[arg-type]
    ],
)
def test_a_layout_of_a_plugin(row: SourceRow, said: str | None, gpt2: Any) -> None:
    layout = Layout("own", "q: text", lambda _: True, lambda _: row, version="dist:1", shape="demonstrations")
    tokenise = TokeniseRows(layout, gpt2, 64, 32, None)
    if said is None:
        [made] = tokenise({"q": ["Q?"]}, [0]).to_pylist()
        assert (made["reason"], made["response_text"]) == ("", ["yes"])
        return
    with pytest.raises(DataError, match=said):
        tokenise({"q": ["Q?"]}, [0])
