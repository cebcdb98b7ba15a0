"""What selectors decide, applied to rows: stacked, recorded, and part of the data's identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignzoo.contract.shapes import Shape
from alignzoo.data.selection import Selected, apply, in_words, record
from alignzoo.data.stream import PairStream
from alignzoo.errors import AlignzooError, DataError, MethodError
from alignzoo.interfaces import Selection
from alignzoo.testing.selectors import sample_rows


def after(*selections: Selection, shape: Shape = "pairs") -> Selected:
    selected = Selected(sample_rows(shape))
    for number, selection in enumerate(selections):
        selected = apply(selected, selection, name=f"s{number}", shape=shape)
    return selected


def test_a_selection_of_everything_changes_nothing() -> None:
    rows, found = sample_rows("pairs"), after(Selection())
    assert list(found.rows) == list(rows)
    assert (found.flipped, found.prefixes, found.keep_order, found.changes) == (frozenset(), {}, False, ())


def test_stacked_selectors_see_what_earlier_ones_left() -> None:
    rows = sample_rows("pairs")
    found = after(
        Selection([1, 2, 3, 5], flipped=[2, 3], reasons={0: "first"}),
        Selection([3, 1, 0], flipped=[1, 0], keep_order=True, reasons={2: "third"}),
    )
    assert found.rows["row_id"] == [105, 102, 101]
    expected = [rows[5]["response_ids"], rows[2]["response_ids"], rows[1]["response_ids"][::-1]]
    assert found.rows["response_ids"] == expected, "row 102 was flipped twice"
    assert found.rows["safe"][2] == rows[1]["safe"][::-1]
    assert found.flipped - {103} == {101}
    assert found.keep_order
    assert [change for change in found.changes if change["row_id"] in (100, 102, 103)] == [
        {"selector": "s0", "row_id": 100, "dropped": "first"},
        {"selector": "s0", "row_id": 102, "flipped": True},
        {"selector": "s0", "row_id": 103, "flipped": True},
        {"selector": "s1", "row_id": 102, "flipped": True},
        {"selector": "s1", "row_id": 103, "dropped": "third"},
    ]
    moved = {change["row_id"]: change["place"] for change in found.changes if "place" in change}
    assert moved == {105: 0, 101: 2}


def test_flips_negate_the_label_of_unpaired_rows_and_reverse_ranked_ones() -> None:
    unpaired, ranked = sample_rows("unpaired"), sample_rows("ranked")
    assert after(Selection(flipped=[4]), shape="unpaired").rows["label"][4] == -unpaired["label"][4]
    flipped = after(Selection(flipped=[4]), shape="ranked").rows[4]
    assert flipped["response_ids"] == ranked[4]["response_ids"][::-1]
    assert flipped["score"] == ranked[4]["score"][::-1]


@pytest.mark.parametrize(
    ("selection", "shape", "said"),
    [
        (Selection([0, 12]), "pairs", "rows names row 12"),
        (Selection([-1]), "pairs", "rows names row -1"),
        (Selection([3, 3]), "pairs", "names a row twice"),
        (Selection([1], flipped=[2]), "pairs", "flipped names a row that is not kept"),
        (Selection(flipped=[2]), "demonstrations", "demonstrations, which have no labels"),
        (Selection(prefixes={0: 1}), "unpaired", "unpaired rows have one"),
        (Selection(prefixes={0: 99}), "pairs", "it moves 99 of the"),
        (Selection(prefixes={0: 0}), "pairs", "it moves 0 of the"),
    ],
)
def test_what_is_no_selection_of_the_rows_is_refused(selection: Selection, shape: Shape, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        after(selection, shape=shape)


def test_nothing_left_is_refused_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"'s0' leaves none of the 12 pairs to train on \(dull: 11, long: 1\)"):
        after(Selection([], reasons=dict.fromkeys(range(11), "dull") | {11: "long"}))


def test_a_flip_after_a_prefix_is_refused() -> None:
    with pytest.raises(MethodError, match="an earlier selector moved"):
        after(Selection(prefixes={3: 1}), Selection(flipped=[3]))
    assert after(Selection(prefixes={3: 1}), Selection(flipped=[4])).prefixes == {103: 1}


def test_the_summary_in_words() -> None:
    found = after(Selection(range(1, 12), [2, 3], facts={"threshold": 0.25}, reasons={0: "both unsafe"}))
    words = "selector s0: 2 of 12 pairs swapped, 1 dropped (both unsafe); threshold 0.25"
    assert in_words(found.summaries[0], "pairs") == words
    assert in_words(after(Selection()).summaries[0], "ranked") == "selector s0: 0 of 12 ranked rows changed"
    reasons = after(Selection(range(3, 12), reasons={0: "a", 1: "b", 2: "b"})).summaries[0]
    assert in_words(reasons, "pairs") == "selector s0: 3 of 12 pairs dropped (b: 2, a: 1)"


def test_the_record_is_one_line_per_changed_row_and_another_one_is_refused(tmp_path: Path) -> None:
    found = after(Selection(range(1, 12), [2], reasons={0: "dull"}), Selection(prefixes={4: 1}, facts={"t": 1.0}))
    record(found, tmp_path)
    record(found, tmp_path)
    header, *lines = [json.loads(line) for line in (tmp_path / "selection.jsonl").read_text().splitlines()]
    assert [(one["selector"], one["rows"], one["kept"]) for one in header["selectors"]] == [
        ("s0", 12, 11),
        ("s1", 11, 11),
    ]
    assert lines == [
        {"selector": "s0", "row_id": 100, "dropped": "dull"},
        {"selector": "s0", "row_id": 102, "flipped": True},
        {"selector": "s1", "row_id": 105, "prefix": 1},
    ]
    with pytest.raises(AlignzooError, match="chose other rows than"):
        record(after(Selection(range(1, 12))), tmp_path)


def test_an_order_that_is_kept_is_not_shuffled() -> None:
    stream = PairStream(6, 4, 0, shuffled=False)
    steps: list[Any] = [stream.indices(step) for step in range(3)]
    assert steps == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]
    assert sorted(stream.visited(1)) == [0, 1, 2, 3]
