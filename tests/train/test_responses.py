"""Views of a batch of responses, against their definitions response by response."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from alignzoo_estimate.live import Live
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.contract.responses import KL, POLICY, ResponseBatch

PROMPTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=7
)
"""Of each prompt: its responses, its KL responses, whether the former have an order, and the label of those without."""


def batch(prompts: Any, *, first: int = 0) -> ResponseBatch:
    rows = [
        (first + i, *((j if ordered else -1, 0 if ordered else 2 * good - 1, POLICY) if j < own else (-1, 0, KL)))
        for i, (own, kl, ordered, good) in enumerate(prompts)
        for j in range(own + kl)
    ]
    prompt, ranks, labels, roles = torch.tensor(rows).T
    logps = torch.arange(len(rows)).double()
    return ResponseBatch(logps, torch.ones(len(rows)), prompt, labels=labels, ranks=ranks, roles=roles)


def pairs_of(responses: ResponseBatch) -> list[tuple[int, int]]:
    """By definition, in order: every response against each of its prompt that is worse."""
    assert responses.ranks is not None
    prompt, ranks = responses.prompt.tolist(), responses.ranks.tolist()
    every = range(len(prompt))
    return [(i, j) for i in every for j in every if prompt[i] == prompt[j] and 0 <= ranks[i] < ranks[j]]


def found_pairs(responses: ResponseBatch) -> list[tuple[int, int]]:
    chosen, rejected = responses.pair_places()
    return list(zip(chosen.tolist(), rejected.tolist(), strict=True))  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_pairs_are_each_response_against_those_that_are_worse(prompts: Any) -> None:
    for one in (batch(prompts), batch(prompts).of_role(POLICY), batch(prompts, first=90)):
        assert found_pairs(one) == pairs_of(one)


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_swapped_they_are_the_other_way_round(prompts: Any) -> None:
    whole = batch(prompts)
    swapped = whole.swap()
    assert sorted((j, i) for i, j in found_pairs(swapped)) == found_pairs(whole)
    for name, value in whole.present().items():
        assert torch.equal(getattr(swapped.swap(), name), value)
    assert torch.equal(swapped.labels, -whole.labels)  # type: ignore[arg-type,operator]


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.data())
def test_some_prompts_alone_are_a_batch_of_these(prompts: Any, data: Any) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(prompts), max_size=len(prompts)).filter(any))
    some = batch(prompts).of_prompts(torch.tensor(kept))
    alone = batch([prompt for prompt, wanted in zip(prompts, kept, strict=True) if wanted])
    for name in ("prompt", "labels", "ranks", "roles"):
        assert torch.equal(getattr(some, name), getattr(alone, name))


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_lists_hold_the_policys_responses_of_each_prompt_best_first(prompts: Any) -> None:
    whole = batch(prompts)
    assert whole.ranks is not None
    assert whole.roles is not None
    for one, order in ((whole, 1), (whole.swap(), -1)):
        places, real = one.lists()
        for i, (_, _, ordered, _) in enumerate(prompts):
            own = ((whole.prompt == i) & (whole.roles == POLICY)).nonzero().flatten().tolist()
            assert places[i][real[i]].tolist() == (own[::order] if ordered else own)


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_what_is_imitated_is_the_best_of_each_list_and_what_is_desirable(prompts: Any) -> None:
    whole = batch(prompts)
    expected, place = [], 0
    for own, kl, ordered, good in prompts:
        expected += [place] if ordered else list(range(place, place + own)) if good else []
        place += own + kl
    assert torch.arange(len(whole))[whole.chosen_places()].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.randoms(use_true_random=False))
def test_the_shortest_is_that_of_the_prompt_and_the_role(prompts: Any, draw: Any) -> None:
    whole = batch(prompts)
    whole = replace(whole, lengths=torch.tensor([float(draw.randint(1, 9)) for _ in range(len(whole))]))
    for i, shortest in enumerate(whole.shortest().tolist()):
        same = (whole.prompt == whole.prompt[i]) & (whole.roles == whole.roles[i])  # type: ignore[index]
        assert shortest == float(whole.lengths[same].min())


def test_views_of_many_responses_need_no_table_of_all_against_all() -> None:
    """Held-out rows of a large data set: a table of 60,000² would be 3.6 GB."""
    size = 30_000
    whole = batch([(2, 2, True, True)] * size)
    with Live() as live:
        assert len(whole.pair_places()[0]) == size  # type: ignore[arg-type]
        assert torch.equal(whole.swap().swap().ranks, whole.ranks)  # type: ignore[arg-type]
    assert live.peak < 2000 * size
