"""The noise and shift selectors: exact counts, stated probabilities, the same rows whatever their order."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from alignzoo import load_method
from alignzoo.data.selection import Selected, apply
from alignzoo.errors import AlignzooError, DataError
from alignzoo.interfaces import Selection, SelectionContext
from alignzoo.plugin import SelectorCard, registry
from alignzoo.testing.selectors import sample_context, sample_rows

FLIPS = ("uniform-flips", "margin-flips", "group-flips", "length-flips")
SIZE = 400


def context(name: str, size: int = SIZE, seed: int = 0, **fields: Any) -> SelectionContext:
    """Many rows: row i has the margin i / 100, one of four groups, and a rejected response of 1 + i % 40 tokens."""
    card = registry().find("selector", name)
    assert isinstance(card, SelectorCard)
    columns: dict[str, Any] = {
        "prompt_text": [f"prompt {i}" for i in range(size)],
        "response_text": [[f"good {i}", f"bad {i}"] for i in range(size)],
        "response_ids": [[[1] * 20, [1] * (1 + i % 40)] for i in range(size)],
    }
    return replace(
        sample_context(card, "pairs", seed=seed),
        row_ids=np.arange(size) + 7,
        scores=[(i / 100, 0.0) for i in range(size)],
        groups=[f"g{i % 4}" for i in range(size)],
        _column=lambda column: columns[column],
        **fields,
    )


def select(name: str, ctx: SelectionContext | None = None, **options: Any) -> Selection:
    selection: Selection = load_method("selector", name, **options).select(ctx or context(name))
    return selection


@pytest.mark.parametrize("name", FLIPS)
def test_noise_flips_exactly_its_rate_and_higher_rates_more(name: str) -> None:
    everyone = {"share": 1.0} if name == "group-flips" else {}
    before = set[int]()
    for rate in (0.0, 0.01, 0.25, 0.5, 1.0):
        flipped = select(name, rate=rate, **everyone).flipped
        assert len(flipped) == len(set(flipped)) == round(rate * SIZE)
        assert before <= set(flipped)
        before = set(flipped)


@pytest.mark.parametrize("name", FLIPS)
def test_at_rate_0_noise_is_the_identity(name: str) -> None:
    rows = sample_rows("pairs")
    card = registry().find("selector", name)
    assert isinstance(card, SelectorCard)
    selection = select(name, sample_context(card, "pairs"), rate=0.0)
    after = apply(Selected(rows), selection, name=name, shape="pairs")
    assert after.rows is rows
    assert (after.flipped, after.changes) == (frozenset(), ())


@pytest.mark.parametrize("name", FLIPS)
def test_which_rows_are_flipped_depends_on_the_row_and_the_seed_alone(name: str) -> None:
    ctx, backwards = context(name), np.arange(SIZE)[::-1]
    reversed_columns = {column: ctx._column(column)[::-1] for column in ("response_ids",)}
    turned = replace(
        ctx,
        row_ids=ctx.row_ids[backwards],
        scores=list(ctx.scores or ())[::-1],
        groups=list(ctx.groups or ())[::-1],
        _column=lambda column: reversed_columns[column],
    )
    flipped = {int(ctx.row_ids[row]) for row in select(name, ctx).flipped}
    assert {int(turned.row_ids[row]) for row in select(name, turned).flipped} == flipped
    assert {int(ctx.row_ids[row]) for row in select(name, context(name, seed=1)).flipped} != flipped


def test_two_noises_draw_independently() -> None:
    """Otherwise the second of a stack would undo the first."""
    first, second = (set(select(name, rate=0.5).flipped) for name in ("uniform-flips", "margin-flips"))
    assert len(first & second) < 0.65 * len(first)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("margin-flips", {"temperature": 0.5}),
        ("length-flips", {"temperature": 0.5}),
        ("length-flips", {"prefer": "shorter"}),
    ],
)
def test_the_first_row_drawn_follows_the_weights(name: str, options: dict[str, Any]) -> None:
    """Of three rows one is flipped: over many seeds, as often as its share of the weights says."""
    size, tries = 3, 3000
    margins, rejected = (0.1, 0.5, 2.0), (5, 10, 40)
    counts = np.zeros(size)
    ctx = context(name, size)
    ctx = replace(
        ctx,
        scores=[(margin, 0.0) for margin in margins],
        _column=lambda _: [[[1] * 20, [1] * tokens] for tokens in rejected],
    )
    for seed in range(tries):
        [row] = select(name, replace(ctx, seed=seed), rate=0.34, **options).flipped
        counts[row] += 1
    temperature = options.get("temperature", 0.25)
    if name == "margin-flips":
        x = [-margin / temperature for margin in margins]
    else:
        x = [(-1 if "prefer" in options else 1) * np.log(tokens / 20) / temperature for tokens in rejected]
    weights = 1 / (1 + np.exp(-np.array(x)))
    assert counts / tries == pytest.approx(weights / weights.sum(), abs=0.03)


def test_small_margins_and_longer_rejected_responses_flip_more() -> None:
    margins = select("margin-flips", temperature=0.5)
    assert margins.facts["margin_flipped"] < 0.5 * margins.facts["margin_others"]
    lengths = select("length-flips")
    assert lengths.facts["rejected_over_chosen_flipped"] > 1.3 * lengths.facts["rejected_over_chosen_others"]
    row = min(margins.flipped)
    assert margins.notes[row] == f"margin {row / 100:.4g}"


def test_group_flips_stay_within_the_unreliable_groups() -> None:
    ctx = context("group-flips")
    assert ctx.groups is not None
    selection = select("group-flips", ctx, groups="g1, g3", rate=0.3)
    assert {
        group: sum(ctx.groups[row] == group for row in selection.flipped) for group in ("g0", "g1", "g2", "g3")
    } == {
        "g0": 0,
        "g1": 30,
        "g2": 0,
        "g3": 30,
    }
    drawn = [{ctx.groups[row] for row in select("group-flips", replace(ctx, seed=seed)).flipped} for seed in range(20)]
    assert all(len(groups) == 2 for groups in drawn), "half of the four groups"
    assert len(set(map(frozenset, drawn))) > 1, "which ones depends on the seed"
    assert len({ctx.groups[row] for row in select("group-flips", share=0.1).flipped}) == 1, "never none"


def test_a_group_that_does_not_exist_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="no training row has the group 'g11'") as error:
        select("group-flips", groups="g11")
    assert error.value.hint == "did you mean g1?"
    with pytest.raises(DataError, match=r"--selector\.domains\.out"):
        select("domains", out="elsewhere")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("group-flips", {"groups": "g1", "share": 0.5}),
        ("domains", {"out": "g1", "draw": 1}),
        ("domains", {"out": ","}),
    ],
)
def test_options_that_would_do_nothing_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(AlignzooError):
        load_method("selector", name, **options)


def test_domains_trains_on_no_row_of_the_groups_left_out() -> None:
    ctx = context("domains")
    assert ctx.groups is not None
    selection = select("domains", ctx, out="g0,g2")
    assert [ctx.groups[row] for row in selection.rows or ()] == ["g1", "g3"] * (SIZE // 4)
    assert set(selection.left_out) == {"g0", "g2"}
    assert set(selection.reasons.values()) == {"domain g0", "domain g2"}


def test_the_domains_drawn_do_not_depend_on_the_runs_seed() -> None:
    outs = {select("domains", context("domains", seed=seed)).left_out for seed in range(5)}
    assert len(outs) == 1
    assert len(outs.pop()) == 1, "a quarter of the four groups"
    assert len({select("domains", draw=draw).left_out for draw in range(20)}) > 1


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of which some are edited copies of others, of every degree of likeness."""
    draw = np.random.default_rng(seed)
    found = list[str]()
    for _ in range(count):
        words = found[draw.integers(len(found))].split() if found and draw.random() < 0.7 else []
        words = words or [f"w{draw.integers(500)}" for _ in range(draw.integers(20, 40))]
        for place in draw.integers(0, len(words), draw.integers(0, 3)):
            words[place] = f"w{draw.integers(500)}"
        found.append(" ".join(words))
    return found


@pytest.mark.parametrize("similarity", [0.7, 0.9])
def test_near_duplicates_are_those_of_all_pairs_compared(similarity: float) -> None:
    """Connected components of the graph of similar rows, found without hashing."""
    some = texts(150)
    runs = [{tuple(text.split()[i : i + 3]) for i in range(len(text.split()) - 2)} for text in some]
    parent = list(range(len(some)))
    for a, b in combinations(range(len(some)), 2):
        if len(runs[a] & runs[b]) / len(runs[a] | runs[b]) >= similarity:
            low, high = sorted((parent[a], parent[b]))
            parent = [low if leader == high else leader for leader in parent]
    columns = {"prompt_text": [f"<user> {text} <end>" for text in some], "response_text": [["", ""]] * len(some)}
    ctx = replace(context("near-duplicates", len(some)), _column=lambda column: columns[column])
    selection = select("near-duplicates", ctx, similarity=similarity, by="prompts")
    expected = [row for row, leader in enumerate(parent) if row == leader]
    assert 20 < len(expected) < 140
    assert list(selection.rows or ()) == expected
    dropped = {row: f"like row {ctx.row_ids[leader]}" for row, leader in enumerate(parent) if row != leader}
    assert dict(selection.notes) == dropped


def test_a_pair_under_the_opposite_label_is_a_duplicate() -> None:
    good, bad = "I cannot help with that request", "sure here is how to do it"
    columns = {"prompt_text": ["how do I do it"] * 3, "response_text": [[good, bad], [bad, good], ["no", "yes"]]}
    ctx = replace(context("near-duplicates", 3), _column=lambda column: columns[column])
    assert list(select("near-duplicates", ctx).rows or ()) == [0, 2]
    assert list(select("near-duplicates", ctx, by="prompts").rows or ()) == [0]
