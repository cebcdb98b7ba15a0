"""Data of every shape from file to parts, and what a loss is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_examples import REAL_HH, assistant, explicit, user
from datasets import Dataset
from heard import Heard

from alignzoo.contract.card import Need
from alignzoo.contract.loss import LossCard
from alignzoo.data.asked import MOST_NAMED
from alignzoo.data.formats import choose_layout
from alignzoo.data.malformed import refuse_malformed
from alignzoo.data.mismatch import partners
from alignzoo.data.parts import Parts, Scores, load_parts
from alignzoo.data.prepare import prepare
from alignzoo.data.probe_rows import SAFE, UNKNOWN, UNSAFE, safety_labels
from alignzoo.data.rows import PreferenceRow
from alignzoo.data.shapes import NOUNS, SHAPES, label_of, readable
from alignzoo.data.sources import load_rows
from alignzoo.data.summary import DataSummary
from alignzoo.errors import DataError, IncompatibleError
from alignzoo.plan.settings import Settings
from alignzoo.plugin import list_methods


def source(shape: str, count: int = 60) -> list[dict[str, Any]]:
    prompts = [f"How far is tower {n}?" for n in range(count)]
    if shape == "pairs":
        return [{**row, "prompt": prompt} for row, prompt in zip(explicit(count), prompts, strict=True)]
    if shape == "unpaired":
        return [{"prompt": p, "completion": f" Far {n}.", "label": n % 3 > 0} for n, p in enumerate(prompts)]
    if shape == "demonstrations":
        return [{"prompt": p, "completion": f" Far {n}."} for n, p in enumerate(prompts)]
    return [
        {
            "prompt": p,
            "responses": [f" Far {r}." for r in range(2 + n % 3)],
            "scores": [-1.0 * r for r in range(2 + n % 3)],
        }
        for n, p in enumerate(prompts)
    ]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(
    tokenizer: Any, data: str, needs: Any = (), reads: Any = None, heard: Heard | None = None, **more: Any
) -> Parts:
    given = {"eval_share": 0.2, **more}
    settings = Settings(model="m", data=data, **given)
    return load_parts(settings, tokenizer, needs=frozenset(needs), reads=reads or {}, report=heard or Heard())


def prepared(rows: list[dict[str, Any]], tokenizer: Any) -> Any:
    return prepare(Dataset.from_list(rows), tokenizer, max_length=64, max_prompt_length=32)


def test_unpaired_rows_become_one_response_with_a_label(gpt2: Any) -> None:
    rows = [{**row, "score": 0.5, "safe": True, "group": "g"} for row in source("unpaired", 9)]
    made = prepared([*rows, rows[1]], gpt2)
    assert (made.shape, made.summary.shape) == ("unpaired", "unpaired")
    assert made.dataset["label"][:] == [1 if row["label"] else -1 for row in [*rows, rows[1]]]
    assert str(made.dataset.features["label"]) == "Value('int8')"
    assert made.dataset[2]["response_text"] == [" Far 2."]
    assert gpt2.decode(made.dataset[2]["response_ids"][0]) == " Far 2.<|endoftext|>"
    assert (made.dataset[2]["score"], made.dataset[2]["safe"], made.dataset[2]["group"]) == ([0.5], [True], "g")
    assert made.summary.counted["desirable"] == 7
    assert made.summary.counted["undesirable"] == 3
    assert ("unpaired rows kept", "10", "") in made.summary.table()
    assert DataSummary.from_dict(made.summary.to_dict()) == made.summary


def test_the_label_is_part_of_a_rows_content(gpt2: Any) -> None:
    rows = source("unpaired", 4)
    assert prepared(rows, gpt2).fingerprint != prepared([*rows[:3], {**rows[3], "label": True}], gpt2).fingerprint


def test_ranked_rows_become_lists_best_first(gpt2: Any) -> None:
    rows = source("ranked", 6)
    rows[1]["scores"] = [1.0, 3.0, 2.0]
    made = prepared(rows, gpt2)
    assert made.shape == "ranked"
    assert [len(ids) for ids in made.dataset["response_ids"]] == [2, 3, 4, 2, 3, 4]
    assert made.dataset[1]["response_text"] == [" Far 1.", " Far 2.", " Far 0."]
    assert made.dataset[1]["score"] == [3.0, 2.0, 1.0]
    assert made.summary.counted["responses"] == 18
    assert set(made.summary.lengths) == {"prompt", "response"}
    assert "label" not in made.dataset.column_names


def test_malformed_unpaired_and_ranked_rows_are_located(gpt2: Any, tmp_path: Path) -> None:
    unpaired = [*source("unpaired", 3), {"prompt": "?", "completion": " y"}, {"prompt": "?", "label": True}]
    ranked = [*source("ranked", 3), {"prompt": "?", "responses": [" a", " b"], "scores": [1.0]}]
    for name, rows, said in (
        ("unpaired", unpaired, ("4: field 'label' is missing", "5: field 'completion' is missing")),
        ("ranked", ranked, ("4: field 'scores' has 1 values for 2 responses",)),
    ):
        made = prepare(write(tmp_path / f"{name}.jsonl", rows), gpt2, max_length=64, max_prompt_length=32)
        assert made.summary.kept == 3
        with pytest.raises(DataError) as error:
            refuse_malformed(made)
        assert all(f"{name}.jsonl:{line}" in str(error.value) for line in said)


def test_chat_messages_of_every_shape(chatml: Any) -> None:
    prompt, yes, no = [user("Hi?")], [assistant("yes")], [assistant("no")]
    one = prepared([{"prompt": prompt, "completion": yes, "label": True}], chatml).dataset[0]
    two = prepared([{"prompt": prompt, "chosen": yes, "rejected": no}], chatml).dataset[0]
    many = prepared([{"prompt": prompt, "responses": [no, yes]}], chatml).dataset[0]
    assert one["prompt_ids"] == two["prompt_ids"] == many["prompt_ids"]
    assert two["response_ids"] == many["response_ids"][::-1]
    assert one["response_ids"] == two["response_ids"][:1]


def test_hh_rlhf_as_unpaired_rows_has_the_tokens_of_its_pairs(chatml: Any) -> None:
    if not REAL_HH.exists():
        pytest.skip("the HH-RLHF file is not here")
    pairs = load_rows(str(REAL_HH)).select(range(200))
    unpaired = []
    for row in map(choose_layout(pairs).normalise, pairs):
        if isinstance(row, PreferenceRow):
            shared = {"prompt": row.prompt}
            unpaired += [{**shared, "completion": row.chosen, "label": True}]
            unpaired += [{**shared, "completion": row.rejected, "label": False}]
    two = prepare(pairs, chatml, max_length=100_000, max_prompt_length=50_000)
    one = prepare(Dataset.from_list(unpaired), chatml, max_length=100_000, max_prompt_length=50_000)
    assert one.dataset["response_ids"][:] == [[ids] for row in two.dataset["response_ids"] for ids in row]
    assert one.dataset["prompt_ids"][::2] == one.dataset["prompt_ids"][1::2] == two.dataset["prompt_ids"][:]
    assert one.dataset["label"][:] == [label_of("pairs", rank) for _ in two.dataset for rank in (0, 1)]


@pytest.mark.parametrize("shape", ["pairs", "unpaired", "ranked"])
def test_parts_share_no_prompt_and_noise_flips_training_rows_only(shape: str, gpt2: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", source(shape))
    clean, noisy = (load(gpt2, data, label_noise=rate, probe_share=0.3) for rate in (0, 0.5))
    assert clean.shape == noisy.shape == shape
    parts = [noisy.train, noisy.held_out, noisy.probe_train, noisy.probe_validation]
    keys = [set(part["prompt_key"][:]) for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys)) == 60
    assert noisy.held_out is not None
    assert clean.held_out is not None
    assert list(noisy.held_out) == list(clean.held_out)
    changed = {row["row_id"] for row, other in zip(noisy.train, clean.train, strict=True) if row != other}
    assert changed == noisy.flipped
    assert len(changed) == round(len(noisy.train) / 2)
    assert clean.fingerprint != noisy.fingerprint


@pytest.mark.parametrize("shape", SHAPES)
def test_partners_come_where_a_method_needs_them(shape: str, gpt2: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", source(shape))
    assert load(gpt2, data).partners == {}
    parts = load(gpt2, data, needs={"mismatched"})
    for name, part in (("train", parts.train), ("held_out", parts.held_out)):
        assert np.array_equal(parts.partners[name], partners(part, 512))


TABLE = {
    "pairs": ("pairs", "ranked"),
    "lists": ("pairs", "ranked"),
    "responses": ("pairs", "unpaired"),
    "chosen": SHAPES,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reads", TABLE)
def test_a_loss_is_refused_what_it_cannot_read(reads: Any, shape: Any, gpt2: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", source(shape))
    needs: set[Need] = {"labels"} if reads == "responses" else set()
    assert (readable(reads, needs, shape) is None) == (shape in TABLE[reads])
    if shape in TABLE[reads]:
        assert load(gpt2, data, needs, {"some-loss": reads}).shape == shape
        return
    with pytest.raises(IncompatibleError, match=f"a.jsonl: --loss some-loss cannot train on {NOUNS[shape]} ") as error:
        load(gpt2, data, needs, {"some-loss": reads})
    readers, others = str(error.value.hint).split(", or use ")
    able = [card for card in list_methods("loss") if isinstance(card, LossCard)]
    able = [card for card in able if readable(card.reads, card.needs, shape) is None]
    few = len(able) <= MOST_NAMED
    assert f"({', '.join(card.name for card in able)})" in readers if few else "`alignzoo ls loss`" in readers
    assert shape not in others


def test_responses_without_their_labels_are_read_from_any_shape() -> None:
    assert all(readable("responses", (), shape) is None for shape in SHAPES)


def test_labels_follow_from_the_shape() -> None:
    assert [label_of("pairs", rank) for rank in (0, 1)] == [1, -1]
    assert [label_of("ranked", rank) for rank in range(3)] == [0, 0, 0]


def test_one_label_alone_is_warned_of_and_nothing_to_imitate_refused(gpt2: Any, tmp_path: Path) -> None:
    for label, said in ((True, "no undesirable responses to contrast"), (False, "no desirable responses to contrast")):
        data = write(tmp_path / "a.jsonl", [{**row, "label": label} for row in source("unpaired")])
        heard = Heard()
        load(gpt2, data, {"labels"}, {"kto": "responses"}, heard)
        assert any(said in warning for warning in heard.warnings)
    with pytest.raises(DataError, match="--loss sft trains on desirable responses, but none of the"):
        load(gpt2, data, (), {"sft": "chosen"})
    heard = Heard()
    load(gpt2, write(tmp_path / "b.jsonl", source("unpaired")), {"labels"}, {"kto": "responses"}, heard)
    assert not heard.warnings


def test_held_out_data_of_another_shape_is_refused(gpt2: Any, tmp_path: Path) -> None:
    files = {shape: write(tmp_path / f"{shape}.jsonl", source(shape)) for shape in SHAPES}
    with pytest.raises(DataError, match=r"has unpaired rows, but --data .* has pairs"):
        load(gpt2, files["pairs"], eval_data=files["unpaired"])


@pytest.mark.parametrize(
    ("shape", "need", "column"),
    [
        ("pairs", "scores", "chosen_score or no rejected_score"),
        ("unpaired", "scores", "score"),
        ("ranked", "groups", "group"),
    ],
)
def test_a_column_that_is_missing_is_named_as_the_source_would_have_it(
    shape: str, need: str, column: str, gpt2: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"needs {need}, but the data has no {column}\n"):
        load(gpt2, write(tmp_path / "a.jsonl", source(shape)), {need})


def test_safety_labels_are_flags_else_labels_else_the_order(gpt2: Any) -> None:
    flagged = [{**row, "safe": n % 2 == 0} for n, row in enumerate(source("unpaired", 4))]
    assert safety_labels(prepared(flagged, gpt2).dataset).tolist() == [SAFE, UNSAFE, SAFE, UNSAFE]
    assert safety_labels(prepared(source("unpaired", 4), gpt2).dataset).tolist() == [UNSAFE, SAFE, SAFE, UNSAFE]
    assert safety_labels(prepared(source("pairs", 2), gpt2).dataset).tolist() == [SAFE, UNSAFE] * 2
    ranked = prepared(source("ranked", 3), gpt2).dataset.select([2, 0])
    assert safety_labels(ranked).tolist() == [SAFE, UNKNOWN, UNKNOWN, UNSAFE, SAFE, UNSAFE]


def test_scores_are_given_by_row() -> None:
    scores = Scores(torch.arange(6.0), np.array([0, 2, 3, 6]))
    assert scores.of([2, 0]) == [[3.0, 4.0, 5.0], [0.0, 1.0]]
