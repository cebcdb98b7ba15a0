"""From a source to a tokenised dataset: contents, counts, errors with their place, and the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_examples import REAL_HH, explicit
from datasets import Dataset

from alignzoo.data import prepare as preparing
from alignzoo.data.collate import batches_of
from alignzoo.data.noise import flip_labels
from alignzoo.data.prepare import Prepared, prepare
from alignzoo.data.splits import split_by_prompt
from alignzoo.data.summary import DataSummary
from alignzoo.data.tokenise_rows import TokeniseRows
from alignzoo.errors import DataError, UsageError

Jsonl = Callable[..., str]


def made(source: str | Dataset, tokenizer: Any, **settings: Any) -> Prepared:
    return prepare(source, tokenizer, **{"max_length": 64, "max_prompt_length": 32, **settings})


def test_columns_types_and_row_numbers(jsonl: Jsonl, gpt2: Any) -> None:
    rows = explicit(4)
    rows[1]["chosen"] = ""
    result = made(jsonl(rows), gpt2)
    kinds = {name: str(feature) for name, feature in result.dataset.features.items()}
    assert kinds == {
        "row_id": "Value('int64')",
        "prompt_ids": "List(Value('int32'))",
        "response_ids": "List(List(Value('int32')))",
        **dict.fromkeys(("prompt_key", "prompt_text"), "Value('string')"),
        "response_text": "List(Value('string'))",
    }
    assert result.shape == "pairs"
    assert result.dataset["row_id"][:] == [0, 2, 3]
    assert result.dataset.cache_files, "the result must be memory-mapped"
    assert result.dataset[1]["prompt_text"] == "What is 2?"
    assert [gpt2.decode(ids) for ids in result.dataset[1]["response_ids"]] == [
        *(" It is 2.<|endoftext|>", " No 2.<|endoftext|>")
    ]


def test_optional_columns_appear_only_where_the_data_has_them(gpt2: Any) -> None:
    extra = {"chosen_safe": True, "rejected_safe": False, "score_chosen": 2, "score_rejected": 1.5, "group": "g"}
    row = made(Dataset.from_list([{**row, **extra} for row in explicit()]), gpt2).dataset[0]
    assert (row["safe"], row["score"], row["group"]) == ([True, False], [2.0, 1.5], "g")
    del extra["score_rejected"]
    half = made(Dataset.from_list([{**row, **extra} for row in explicit()]), gpt2).dataset
    assert half.column_names[-2:] == ["safe", "group"], "scores of one side only are no scores of responses"


def test_pku_safety_flags_and_the_note_about_the_label(gpt2: Any) -> None:
    row = {"prompt": "P?", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    plain = made(Dataset.from_list([row]), gpt2)
    assert "safe" not in plain.dataset.column_names
    assert plain.summary.notes == ("the chosen response is taken from safer_response_id",)
    flagged = made(Dataset.from_list([{**row, "is_response_0_safe": False, "is_response_1_safe": True}]), gpt2)
    assert flagged.dataset[0]["safe"] == [True, False]


def test_summary_counts_every_row_once(jsonl: Jsonl, metaspace: Any) -> None:
    good = {"prompt": "Q:", "chosen": " yes", "rejected": " no"}
    rows = [
        good,
        good,
        {**good, "prompt": "Q: ", "chosen": "yes", "rejected": "no"},
        {**good, "chosen": " "},
        {**good, "chosen": " no"},
        {**good, "prompt": "Q:" * 40},
        {**good, "rejected": " no" * 70},
    ]
    path = jsonl(rows)
    summary = made(path, metaspace, split="train").summary
    assert (summary.source, summary.split, summary.format, summary.shape) == (path, "train", "explicit", "pairs")
    assert (summary.rows, summary.kept) == (7, 4)
    assert {reason: (entry.count, entry.rows) for reason, entry in summary.dropped.items()} == {
        "empty-chosen": (1, (3,)),
        "identical-sides": (1, (4,)),
        "prompt-too-long": (1, (5,)),
    }
    # Row 2 has the tokens of row 0: where the text was cut makes no difference to the model.
    counted = {"boundary-moved": 1, "response-truncated": 1, "prompt-restored": 0, "duplicate": 2}
    assert summary.counted == counted
    assert summary.lengths["prompt"] == {"p5": 3, "p50": 3, "p95": 3, "max": 3}
    assert summary.lengths["rejected"]["max"] == 61
    assert DataSummary.from_dict(summary.to_dict()) == summary
    table = summary.table()
    assert ("dropped: empty-chosen", "1", "rows 3") in table
    assert ("counted: duplicate", "2", "") in table
    assert all(len(row) == 3 for row in table)


def test_at_most_twenty_examples_per_reason(gpt2: Any) -> None:
    rows = [{**row, "chosen": ""} for row in explicit(30)] + explicit(1)
    entry = made(Dataset.from_list(rows), gpt2).summary.dropped["empty-chosen"]
    assert entry.count == 30
    assert entry.rows == tuple(range(20))


def test_bytes_that_are_no_text_in_a_saved_dataset_are_a_data_error(gpt2: Any, tmp_path: Path) -> None:
    rows = Dataset.from_list(explicit(9))
    rows.save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    content = file.read_bytes()
    assert content.count(b"It is 4") == 1
    file.write_bytes(content.replace(b"It is 4", b"It is \xff"))
    with pytest.raises(DataError, match=r"saved: cannot be read: .*UTF8"):
        made(str(tmp_path / "saved"), gpt2)


def test_data_of_malformed_rows_only_names_file_line_and_field(jsonl: Jsonl, gpt2: Any) -> None:
    path = jsonl([{**row, "score_chosen": None, "score_rejected": 1.0} for row in explicit(30)])
    with pytest.raises(DataError, match="none of its 30 rows is usable") as error:
        made(path, gpt2)
    assert "30  malformed-score_chosen" in str(error.value)
    assert "pairs.jsonl:1: field 'score_chosen' is missing" in str(error.value)


def test_no_usable_row_lists_the_reasons(jsonl: Jsonl, gpt2: Any) -> None:
    rows = explicit(3)
    rows[0]["chosen"] = rows[1]["chosen"] = ""
    rows[2]["chosen"] = rows[2]["rejected"]
    with pytest.raises(DataError, match="none of its 3 rows is usable") as error:
        made(jsonl(rows), gpt2)
    assert "2  empty-chosen" in str(error.value)
    assert "1  identical-sides" in str(error.value)


def test_impossible_lengths_are_a_usage_error(gpt2: Any) -> None:
    with pytest.raises(UsageError, match="leave no room"):
        made(Dataset.from_list(explicit()), gpt2, max_length=1)
    with pytest.raises(UsageError, match="leave no room"):
        made(Dataset.from_list(explicit()), gpt2, max_prompt_length=0)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets one entry for every block that is tokenised."""
    blocks: list[int] = []
    call = TokeniseRows.__call__

    def counted(self: TokeniseRows, block: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        blocks.append(len(indices))
        return call(self, block, indices)

    monkeypatch.setattr(TokeniseRows, "__call__", counted)
    return blocks


def test_second_call_reads_the_cache_wherever_the_same_rows_come_from(
    jsonl: Jsonl, gpt2: Any, passes: list[int]
) -> None:
    first = made(jsonl(explicit()), gpt2)
    gpt2(["Hi", "Hello there"], padding=True, truncation=True, max_length=4)
    again = made(jsonl(explicit()), gpt2)
    moved = made(jsonl(explicit(), "other.jsonl"), gpt2)
    in_memory = made(Dataset.from_list(explicit()), gpt2)
    assert passes == [3]
    assert first.fingerprint == again.fingerprint == moved.fingerprint == in_memory.fingerprint
    assert list(first.dataset) == list(again.dataset) == list(in_memory.dataset)
    assert again.summary == first.summary
    assert moved.summary.source.endswith("other.jsonl")


def test_any_setting_that_matters_misses_the_cache(gpt2: Any, passes: list[int], monkeypatch: Any) -> None:
    rows = Dataset.from_list(explicit())
    fingerprints = {made(rows, gpt2).fingerprint, made(rows, gpt2, max_length=10).fingerprint}
    assert len(fingerprints) == 2, "truncation changes the content"
    made(rows, gpt2, max_prompt_length=31)
    made(rows.select([0, 1]), gpt2)
    gpt2.eos_token = "a"
    fingerprints.add(made(rows, gpt2).fingerprint)
    gpt2.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    fingerprints.add(made(rows, gpt2).fingerprint)
    monkeypatch.setattr(preparing, "CODE_VERSION", -1)
    made(rows, gpt2)
    assert len(passes) == 7
    assert len(fingerprints) == 4


@pytest.mark.parametrize("name", ["summary.json", "rows.arrow", "contents.npy"])
@pytest.mark.parametrize("damage", ["overwritten", "cut", "gone", "emptied", "one-bit"])
def test_damaged_cache_is_built_again(gpt2: Any, passes: list[int], own_cache: Path, name: str, damage: str) -> None:
    rows = Dataset.from_list(explicit(300))
    first = made(rows, gpt2)
    (file,) = (own_cache / "alignzoo").glob(f"*/{name}")
    whole = file.read_bytes()
    file.unlink()  # a new file: the first result is still mapped
    if damage != "gone":
        half = len(whole) // 2
        one_bit = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
        content = {"overwritten": b"damaged", "cut": whole[:-9], "emptied": b"", "one-bit": one_bit}
        file.write_bytes(content[damage])
    again = made(rows, gpt2)
    [note] = again.summary.notes
    assert str(file) in note
    assert again.fingerprint == first.fingerprint
    assert list(again.dataset) == list(first.dataset)
    assert passes == [300, 300]
    assert len(list((own_cache / "alignzoo").iterdir())) == 1, "no half-built folder is left"
    assert made(rows, gpt2).summary == first.summary
    assert passes == [300, 300]


def test_failure_leaves_nothing_half_built(gpt2: Any, own_cache: Path) -> None:
    with pytest.raises(DataError):
        made(Dataset.from_list([{**explicit(1)[0], "chosen": ""}]), gpt2)
    assert list((own_cache / "alignzoo").iterdir()) == []


def test_workers_do_not_change_the_outcome(gpt2: Any, own_cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import datasets

    rows = Dataset.from_list(explicit(50))
    alone = made(rows, gpt2, workers=1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "second-cache")
    together = made(rows, gpt2, workers=2)
    assert alone.fingerprint == together.fingerprint
    assert list(alone.dataset) == list(together.dataset)
    assert alone.summary == together.summary


def test_blocks_and_dropped_rows_do_not_show_in_the_result(jsonl: Jsonl, gpt2: Any, monkeypatch: Any) -> None:
    rows = explicit(90)
    for number in (0, 11, 12, 13, 89):
        rows[number]["chosen"] = ""
    whole = made(jsonl(rows), gpt2)
    monkeypatch.setattr(preparing, "_ROWS_PER_BLOCK", 4)
    monkeypatch.setattr(preparing, "CODE_VERSION", -1)  # so that it is built again
    in_blocks = made(jsonl(rows), gpt2, workers=2)
    assert list(in_blocks.dataset) == list(whole.dataset)
    assert in_blocks.dataset["row_id"][:] == [n for n in range(90) if n not in (0, 11, 12, 13, 89)]
    assert (in_blocks.fingerprint, in_blocks.summary) == (whole.fingerprint, whole.summary)
    assert in_blocks.highest_id == max(max(*row["prompt_ids"], *map(max, row["response_ids"])) for row in whole.dataset)


def test_two_processes_that_build_the_same_agree_on_one_result(
    gpt2: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Dataset.from_list(explicit())
    build = preparing._build
    raced: list[Prepared] = []

    def build_while_another_does(*args: Any) -> None:
        monkeypatch.setattr(preparing, "_build", build)
        raced.append(made(rows, gpt2))
        build(*args)

    monkeypatch.setattr(preparing, "_build", build_while_another_does)
    made(rows, gpt2)
    assert made(rows, gpt2).fingerprint == raced[0].fingerprint
    assert len(list((own_cache / "alignzoo").iterdir())) == 1


def test_prepared_rows_go_through_split_noise_and_batches(gpt2: Any) -> None:
    data = made(Dataset.from_list(explicit(40)), gpt2).dataset
    train = split_by_prompt(data, {"train": 0.8, "eval": 0.2}, 0, "main")["train"]
    noisy, flipped = flip_labels(train, 0.25, 0)
    assert noisy.cache_files, "the result must be memory-mapped"
    assert len(flipped) == round(len(train) / 4)
    assert noisy["row_id"][:] == train["row_id"][:]
    for clean, row in zip(train, noisy, strict=True):
        flip = -1 if clean["row_id"] in flipped else 1
        assert row["response_ids"] == clean["response_ids"][::flip]
    assert list(flip_labels(train, 0.5, 0)[0]) != list(noisy), "another rate is another cache entry"
    batch = next(batches_of(noisy, range(len(noisy)), 4, gpt2.pad_token_id, shape="pairs"))
    assert batch.row_ids.tolist() == train["row_id"][:4]


def test_real_hh_rlhf(chatml: Any) -> None:
    if not REAL_HH.exists():
        pytest.skip("the HH-RLHF file is not here")
    summary = prepare(str(REAL_HH), chatml, max_length=100_000, max_prompt_length=50_000).summary
    assert (summary.rows, summary.kept) == (2312, 2303)
    assert {reason: entry.count for reason, entry in summary.dropped.items()} == {
        "no-common-prompt": 5,
        "empty-chosen": 4,
    }
