"""Every layout, one canonical row; what cannot be used is dropped with a reason, what is malformed names the field."""

from __future__ import annotations

from typing import Any

import pytest
from data_examples import REAL_HH, REAL_XSTEST, assistant, user
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.fields import desirable
from alignzoo.data.formats import choose_layout, layouts
from alignzoo.data.rows import (
    ROW_TYPES,
    DemonstrationRow,
    Drop,
    FieldError,
    PreferenceRow,
    RankedRow,
    SourceRow,
    UnpairedRow,
    prompt_key,
)
from alignzoo.data.sources import load_rows
from alignzoo.data.transcripts import parse_transcript, write_transcript
from alignzoo.errors import DataError, UsageError

LAYOUTS = {layout.name: layout for layout in layouts(own=True)}
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
PKU = {
    "prompt": "P?",
    "response_0": "zero",
    "response_1": "one",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 0,
    "safer_response_id": 1,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "explicit": {"prompt": "P?", "chosen": "c", "rejected": "r"},
    "conversational": {"prompt": [user("P?")], "chosen": [assistant("c")], "rejected": [assistant("r")]},
    "implicit": {"chosen": "The sky is blue.", "rejected": "The sky is black."},
    "implicit-conversational": {"chosen": [user("P?"), assistant("c")], "rejected": [user("P?"), assistant("r")]},
    "hh-rlhf": {"chosen": f"{HH} Because.", "rejected": f"{HH} Go away."},
    "pku-saferlhf": PKU,
    "pku-saferlhf-helpful": PKU,
    "ultrafeedback": {
        "prompt": "P?",
        "chosen": [user("P?"), assistant("c")],
        "rejected": [user("P?"), assistant("r")],
        "score_chosen": 8.5,
        "score_rejected": 3,
    },
    "unpaired": {"prompt": "P?", "completion": "c", "label": False},
    "unpaired-conversational": {"prompt": [user("P?")], "completion": [assistant("c")], "label": True},
    "ranked": {"prompt": "P?", "responses": ["a", "b", "c"]},
    "ranked-conversational": {"prompt": [user("P?")], "responses": [[assistant("a")], [assistant("b")]]},
    "triples": {"prompt": "P?", "reference": "g", "chosen": "c", "rejected": "r"},
    "triples-conversational": {
        "prompt": [user("P?")],
        "reference": [assistant("g")],
        "chosen": [assistant("c")],
        "rejected": [assistant("r")],
    },
    "prompt-completion": {"prompt": "P?", "completion": "c"},
    "prompt-completion-conversational": {"prompt": [user("P?")], "completion": [assistant("c")]},
    "messages": {"messages": [user("P?"), assistant("c")]},
}
CANONICAL: dict[str, SourceRow] = {
    "explicit": PreferenceRow("P?", "c", "r"),
    "conversational": PreferenceRow([user("P?")], [assistant("c")], [assistant("r")]),
    "implicit": PreferenceRow("The sky is", " blue.", " black."),
    "implicit-conversational": PreferenceRow([user("P?")], [assistant("c")], [assistant("r")]),
    "hh-rlhf": PreferenceRow(
        [user("Hi"), assistant("Hello"), user("Why?")],
        [assistant("Because.")],
        [assistant("Go away.")],
        transcript=True,
    ),
    "pku-saferlhf": PreferenceRow("P?", "one", "zero", chosen_safe=True, rejected_safe=False),
    "pku-saferlhf-helpful": PreferenceRow("P?", "zero", "one", chosen_safe=False, rejected_safe=True),
    "ultrafeedback": PreferenceRow(
        [user("P?")], [assistant("c")], [assistant("r")], chosen_score=8.5, rejected_score=3.0
    ),
    "unpaired": UnpairedRow("P?", "c", False),
    "unpaired-conversational": UnpairedRow([user("P?")], [assistant("c")], True),
    "ranked": RankedRow("P?", ["a", "b", "c"]),
    "ranked-conversational": RankedRow([user("P?")], [[assistant("a")], [assistant("b")]]),
    "triples": RankedRow("P?", ["g", "c", "r"]),
    "triples-conversational": RankedRow([user("P?")], [[assistant("g")], [assistant("c")], [assistant("r")]]),
    "prompt-completion": DemonstrationRow("P?", "c"),
    "prompt-completion-conversational": DemonstrationRow([user("P?")], [assistant("c")]),
    "messages": DemonstrationRow([user("P?")], [assistant("c")]),
}


def normalise(name: str, **changes: Any) -> SourceRow | Drop:
    return LAYOUTS[name].normalise({**EXAMPLES[name], **changes})


def without(name: str, *columns: str) -> dict[str, Any]:
    return {column: value for column, value in EXAMPLES[name].items() if column not in columns}


def test_every_layout_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(CANONICAL) == set(LAYOUTS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_detected_and_normalised(name: str) -> None:
    # Of the first the columns are those of pairs as well (see below), of the second those of another layout.
    asked = name if name.startswith("triples") or name == "pku-saferlhf-helpful" else None
    layout = choose_layout(Dataset.from_list([EXAMPLES[name]]), asked)
    assert layout.name == name
    assert normalise(name) == CANONICAL[name]
    assert isinstance(CANONICAL[name], ROW_TYPES[layout.shape])


def test_forced_by_name_and_unknown_name() -> None:
    rows = Dataset.from_list([EXAMPLES["hh-rlhf"]])
    assert choose_layout(rows, "implicit").name == "implicit"
    with pytest.raises(UsageError, match="did you mean hh-rlhf") as error:
        choose_layout(rows, "hh_rlhf")
    assert "ultrafeedback" in str(error.value)


def test_unknown_columns_are_named_with_the_layouts() -> None:
    with pytest.raises(DataError, match=r"id \(a number\), text \(text\)") as error:
        choose_layout(Dataset.from_list([{"id": 1, "text": "x"}]))
    assert "--data.format" in str(error.value)
    assert all(layout.columns in str(error.value) for layout in LAYOUTS.values())


def test_columns_of_two_layouts_are_ambiguous() -> None:
    with pytest.raises(DataError, match="explicit and pku-saferlhf"):
        choose_layout(Dataset.from_list([{**PKU, **EXAMPLES["explicit"]}]))


@pytest.mark.parametrize(("triples", "pairs"), [("triples", "explicit"), ("triples-conversational", "conversational")])
def test_triples_have_to_be_asked_for(triples: str, pairs: str) -> None:
    """Whether a reference is a better response than the chosen one, only who runs it knows."""
    rows = Dataset.from_list([EXAMPLES[triples]])
    with pytest.raises(DataError, match=f"{pairs} and {triples}") as error:
        choose_layout(rows)
    assert "--data.format" in str(error.value)
    assert choose_layout(rows, pairs).normalise(EXAMPLES[triples]) == CANONICAL[pairs]


def test_a_malformed_first_row_does_not_hide_the_layout() -> None:
    rows = Dataset.from_list([{**EXAMPLES["explicit"], "chosen": None}, EXAMPLES["explicit"]])
    assert choose_layout(rows).name == "explicit"


def test_prompts_without_pairs_have_no_layout() -> None:
    if not REAL_XSTEST.exists():
        pytest.skip("the XSTest file is not here")
    with pytest.raises(DataError, match="no known preference layout"):
        choose_layout(load_rows(str(REAL_XSTEST)))


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("explicit", {"prompt": " "}, "empty-prompt"),
        ("explicit", {"chosen": ""}, "empty-chosen"),
        ("explicit", {"rejected": "\n"}, "empty-rejected"),
        ("explicit", {"rejected": "c"}, "identical-sides"),
        ("conversational", {"rejected": []}, "empty-rejected"),
        ("conversational", {"rejected": [user("r")]}, "reply-not-by-assistant"),
        ("conversational", {"chosen": [assistant("a"), user("b"), assistant("c")]}, "several-turns-in-reply"),
        ("implicit", {"rejected": "Grass is green."}, "no-common-prompt"),
        ("implicit", {"rejected": "The sky is blue."}, "identical-sides"),
        ("implicit", {"rejected": ""}, "empty-rejected"),
        ("implicit-conversational", {"chosen": [user("Q?"), assistant("c")]}, "no-common-prompt"),
        ("implicit-conversational", {"chosen": []}, "empty-chosen"),
        ("hh-rlhf", {"chosen": f"{HH}"}, "empty-chosen"),
        ("hh-rlhf", {"rejected": f"{HH}"}, "empty-rejected"),
        ("hh-rlhf", {"rejected": f"{HH} One.\n\nAssistant: Two."}, "no-common-prompt"),
        ("hh-rlhf", {"rejected": "Hello"}, "not-a-transcript"),
        ("hh-rlhf", {"rejected": f"{HH} Because."}, "identical-sides"),
        ("pku-saferlhf", {"response_0": " "}, "empty-rejected"),
        ("ultrafeedback", {"chosen": [user("Q?"), assistant("c")]}, "no-common-prompt"),
        ("unpaired", {"prompt": ""}, "empty-prompt"),
        ("unpaired", {"completion": " "}, "empty-response"),
        ("unpaired-conversational", {"completion": []}, "empty-response"),
        ("unpaired-conversational", {"completion": [user("c")]}, "reply-not-by-assistant"),
        ("unpaired-conversational", {"completion": [assistant("c"), user("d")]}, "several-turns-in-reply"),
        ("ranked", {"responses": ["a"]}, "fewer-than-two-responses"),
        ("ranked", {"responses": ["a", "b", "a"]}, "identical-responses"),
        ("ranked", {"responses": ["a", "b", "\n"]}, "empty-response"),
        ("ranked", {"ranks": [1, 2, 1]}, "tied-responses"),
        ("ranked", {"scores": [0.5, 2, 2.0]}, "tied-responses"),
        ("ranked-conversational", {"responses": [[assistant("a")], [user("b")]]}, "reply-not-by-assistant"),
        ("triples", {"reference": ""}, "empty-response"),
        ("triples", {"reference": "c"}, "identical-responses"),
        ("triples-conversational", {"rejected": [user("r")]}, "reply-not-by-assistant"),
        ("prompt-completion", {"completion": ""}, "empty-response"),
        ("prompt-completion-conversational", {"completion": [assistant("c"), user("d")]}, "several-turns-in-reply"),
        ("messages", {"messages": []}, "empty-response"),
        ("messages", {"messages": [assistant("c")]}, "empty-prompt"),
        ("messages", {"messages": [user("P?")]}, "reply-not-by-assistant"),
        ("messages", {"messages": [user("P?"), assistant("c"), user("d")]}, "reply-not-by-assistant"),
    ],
)
def test_unusable_rows_are_dropped_by_reason(name: str, changes: dict[str, Any], reason: str) -> None:
    assert normalise(name, **changes) == Drop(reason)


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("explicit", {"chosen": None}, "chosen"),
        ("explicit", {"prompt": 5}, "prompt"),
        ("explicit", {"group": None}, "group"),
        ("conversational", {"chosen": "c"}, "chosen"),
        ("conversational", {"prompt": [{"role": "user"}]}, "prompt[0].content"),
        ("conversational", {"chosen": [{"role": "assistant", "content": 3}]}, "chosen[0].content"),
        ("conversational", {"chosen": ["c"]}, "chosen[0]"),
        ("pku-saferlhf", {"safer_response_id": 2}, "safer_response_id"),
        ("pku-saferlhf", {"is_response_1_safe": "yes"}, "is_response_1_safe"),
        ("ultrafeedback", {"score_chosen": float("nan")}, "score_chosen"),
        ("ultrafeedback", {"score_rejected": "high"}, "score_rejected"),
        ("unpaired", {"label": None}, "label"),
        ("unpaired", {"label": 2}, "label"),
        ("unpaired", {"label": "good"}, "label"),
        ("unpaired", {"label": 1.0}, "label"),
        ("unpaired", {"completion": 5}, "completion"),
        ("unpaired", {"safe": "no"}, "safe"),
        ("unpaired-conversational", {"completion": [{"role": "assistant"}]}, "completion[0].content"),
        ("ranked", {"responses": "a"}, "responses"),
        ("ranked", {"responses": ["a", 5]}, "responses[1]"),
        ("ranked", {"ranks": [0, 1]}, "ranks"),
        ("ranked", {"ranks": [0, 1, None]}, "ranks[2]"),
        ("ranked", {"scores": [1, 2, float("nan")]}, "scores[2]"),
        ("ranked", {"safe": [True, False]}, "safe"),
        ("ranked", {"safe": [True, False, 1]}, "safe[2]"),
        ("ranked-conversational", {"responses": [[assistant("a")], ["b"]]}, "responses[1][0]"),
        ("triples", {"reference": None}, "reference"),
        ("triples-conversational", {"reference": ["g"]}, "reference[0]"),
        ("prompt-completion", {"completion": None}, "completion"),
        ("messages", {"messages": [user("P?"), {"role": "assistant"}]}, "messages[1].content"),
        ("messages", {"messages": "P?"}, "messages"),
    ],
)
def test_malformed_rows_name_the_field(name: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as error:
        normalise(name, **changes)
    assert error.value.field == field


def test_pku_prefers_the_safety_label_and_falls_back() -> None:
    row = LAYOUTS["pku-saferlhf"].normalise(without("pku-saferlhf", "safer_response_id"))
    assert isinstance(row, PreferenceRow)
    assert (row.chosen, row.chosen_safe, row.rejected_safe) == ("zero", False, True)
    bare = without("pku-saferlhf", "is_response_0_safe")
    assert LAYOUTS["pku-saferlhf"].normalise(bare) == PreferenceRow("P?", "one", "zero")


def test_ultrafeedback_replies_without_the_prompt() -> None:
    row = normalise("ultrafeedback", chosen=[assistant("c")], rejected=[assistant("r")])
    assert row == CANONICAL["ultrafeedback"]


@pytest.mark.parametrize("label", [True, 1, "chosen", "True", "desirable"])
@pytest.mark.parametrize("other", [False, 0, -1, "rejected", "false", "undesirable"])
def test_labels_of_trl_and_of_halos(label: Any, other: Any) -> None:
    for value, expected in ((label, True), (other, False)):
        row = {"prompt": [user("P?")], "output": [assistant("c")], "label": value, "reward": 0.5, "type": "binary"}
        layout = choose_layout(Dataset.from_list([row]))
        assert layout.normalise(row) == UnpairedRow([user("P?")], [assistant("c")], expected, score=0.5)


@pytest.mark.parametrize("label", ["maybe", -2, 1.0, 0.5, [True]])
def test_a_label_that_is_none_is_named(label: Any) -> None:
    with pytest.raises(FieldError, match="expected true or false"):
        desirable({"label": label}, "label")


@pytest.mark.parametrize(
    ("columns", "best_first"),
    [
        ({}, "abc"),
        ({"ranks": [3, 1, 2]}, "bca"),
        ({"scores": [0.5, -1.0, 2.0]}, "cab"),
        ({"ranks": [2, 3, 1], "scores": [0.5, 2.0, -1.0]}, "cab"),
    ],
)
def test_the_order_is_that_of_ranks_else_of_scores_else_of_the_list(columns: dict[str, Any], best_first: str) -> None:
    row = normalise("ranked", **columns, safe=[True, False, True])
    assert isinstance(row, RankedRow)
    assert "".join(map(str, row.responses)) == best_first
    assert row.safe == [name != "b" for name in best_first], "values stay with their responses"
    if "scores" in columns:
        assert row.scores == [columns["scores"]["abc".index(name)] for name in best_first]


def test_optional_columns_come_along_in_any_layout() -> None:
    row = normalise("explicit", group=7, chosen_safe=True, rejected_safe=False, chosen_score=1, rejected_score=0)
    expected = PreferenceRow("P?", "c", "r", chosen_safe=True, rejected_safe=False, chosen_score=1, rejected_score=0)
    assert row == PreferenceRow(**{**vars(expected), "group": "7"})
    assert normalise("unpaired", group=7, safe=True, score=1) == UnpairedRow(
        "P?", "c", False, safe=True, score=1.0, group="7"
    )


def test_empty_keys_of_a_message_are_left_out() -> None:
    row = normalise("conversational", chosen=[{**assistant("c"), "tool_calls": None}])
    assert row == CANONICAL["conversational"]


@given(st.text("ab \n"), st.text("ab ", min_size=1), st.text("ab ", min_size=1))
def test_implicit_prompt_and_reply_are_the_text_and_split_at_white_space(prompt: str, a: str, b: str) -> None:
    chosen, rejected = prompt + a, prompt + b
    row = LAYOUTS["implicit"].normalise({"chosen": chosen, "rejected": rejected})
    if isinstance(row, PreferenceRow):
        assert isinstance(row.prompt, str)
        assert isinstance(row.chosen, str)
        assert row.prompt + row.chosen == chosen
        assert row.prompt + str(row.rejected) == rejected
        assert row.chosen[0].isspace()


def test_transcripts_are_parsed_and_written_back() -> None:
    text = EXAMPLES["hh-rlhf"]["chosen"]
    assert write_transcript(parse_transcript(text)) == text
    assert [turn["role"] for turn in parse_transcript("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c")] == [
        "user",
        "assistant",
        "assistant",
    ]


def test_prompt_key_is_the_same_for_text_and_one_user_message() -> None:
    assert prompt_key("P?") == prompt_key(" P?\n") == prompt_key([user("P?")])
    assert len({prompt_key("P?"), prompt_key("Q?"), prompt_key([user("P?"), assistant("c")])}) == 3


def test_real_hh_rlhf_has_exactly_nine_unusable_rows() -> None:
    if not REAL_HH.exists():
        pytest.skip("the HH-RLHF file is not here")
    rows = load_rows(str(REAL_HH))
    layout = choose_layout(rows)
    outcomes = [layout.normalise(row) for row in rows]
    dropped = {number: row.reason for number, row in enumerate(outcomes) if isinstance(row, Drop)}
    assert (layout.name, len(rows)) == ("hh-rlhf", 2312)
    assert {row for row, reason in dropped.items() if reason == "no-common-prompt"} == {1254, 1688, 1950, 1952, 2036}
    assert {row for row, reason in dropped.items() if reason == "empty-chosen"} == {86, 516, 925, 1103}
    assert len(dropped) == 9
