"""Losses that read responses, lists or chosen ones: what they equal."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from batches import column, ranked, unpaired, with_kl
from golden import golden_pairs, golden_responses
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import load_method


def test_kto_equals_golden_values() -> None:
    kl = [0.5, 0.5, -0.5, 1.5]
    kto = load_method("loss", "kto", beta=0.1, undesirable_weight=1.33)
    desirable = kto(with_kl(unpaired("chosen", 1), kl))
    torch.testing.assert_close(desirable, column(0.487503, 0.549834, 0.5, 0.450166), atol=1e-6, rtol=0)
    undesirable = kto(with_kl(unpaired("rejected", -1), kl))
    torch.testing.assert_close(undesirable, column(0.615218, 0.698222, 0.631778, 0.549799), atol=1e-6, rtol=0)


def test_the_kl_estimate_of_kto_is_clamped_after_the_mean_and_a_constant() -> None:
    """(−2, 1): the mean is below 0, so z₀ is 0; clamped one by one it would be ½."""
    kto = load_method("loss", "kto")
    given = with_kl(unpaired("chosen", 1), [-2.0, 1.0])
    assert float(kto.metrics(given)["kl"]) == 0.0
    torch.testing.assert_close(kto(given), torch.sigmoid(-kto.rewards(given)))
    leaf = with_kl(unpaired("chosen", 1), [2.0, 1.0]).logps.clone().requires_grad_(True)
    kto(replace(with_kl(unpaired("chosen", 1), [2.0, 1.0]), logps=leaf)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[:4].all()
    assert not leaf.grad[4:].any()


def test_kto_of_opposite_labels_is_that_of_the_swapped_batch() -> None:
    kto, given = load_method("loss", "kto"), with_kl(unpaired("chosen", 1), [0.5])
    torch.testing.assert_close(kto(given) + kto(given.swap()), torch.ones(4, dtype=torch.float64))
    assert torch.equal(kto.rewards(given), kto.rewards(given.swap()))


@pytest.mark.parametrize(("missing", "words"), [("labels", "'labels'"), ("roles", "'mismatched'")])
def test_kto_says_what_it_lacks(missing: str, words: str) -> None:
    given = replace(with_kl(unpaired("chosen", 1), [0.5]), **{missing: None})
    with pytest.raises(ValueError, match=words):
        load_method("loss", "kto")(given)


def test_pl_dpo_equals_golden_values() -> None:
    pl = load_method("loss", "pl-dpo", beta=0.5)
    torch.testing.assert_close(pl(ranked([[0.2, -0.1, 0.3, -0.4]], 0.5)), column(2.798731), atol=1e-6, rtol=0)


LISTS = st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=6), min_size=1, max_size=4)


@given(scores=LISTS)
def test_pl_dpo_is_the_ranking(scores: list[list[float]]) -> None:
    """exp(−ℓ) is the probability to draw the responses in this order, each among those that are left by softmax(s)."""
    found = load_method("loss", "pl-dpo", beta=0.3)(ranked(scores, 0.3))
    for value, of_prompt in zip(found.tolist(), scores, strict=True):
        left, chance = list(of_prompt), 1.0
        while left:
            chance *= math.exp(left[0]) / math.fsum(map(math.exp, left))
            left.pop(0)
        assert math.exp(-value) == pytest.approx(chance, rel=1e-9)


def test_the_chances_of_all_rankings_add_up_to_one() -> None:
    pl = load_method("loss", "pl-dpo")
    orders = [list(order) for order in itertools.permutations([0.2, -0.1, 0.3, -0.4])]
    assert float(torch.exp(-pl(ranked(orders, 0.1))).sum()) == pytest.approx(1.0, rel=1e-12)


def test_pl_dpo_of_two_is_dpo() -> None:
    pl, dpo = load_method("loss", "pl-dpo", beta=0.1), load_method("loss", "dpo", beta=0.1)
    for given_ in (golden_responses(), replace(golden_responses(), paired=False)):
        torch.testing.assert_close(pl(given_), dpo(golden_pairs()), atol=0, rtol=1e-12)
        torch.testing.assert_close(pl(given_.swap()), dpo(golden_pairs().swap()), atol=0, rtol=1e-12)


@given(scores=LISTS, shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_pl_dpo_reads_ranks_and_not_places_and_only_differences(
    scores: list[list[float]], shift: float, seed: int
) -> None:
    pl, given_ = load_method("loss", "pl-dpo"), ranked(scores, 0.1)
    shuffled = torch.randperm(len(given_), generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[torch.argsort(given_.prompt[shuffled], stable=True)]  # within prompts
    torch.testing.assert_close(pl(given_.rows(shuffled)), pl(given_))
    moved = replace(given_, logps=given_.logps + shift)
    torch.testing.assert_close(pl(moved), pl(given_), rtol=1e-6, atol=1e-9)
    at_zero = pl(replace(given_, logps=given_.ref_logps))  # type: ignore[arg-type]
    torch.testing.assert_close(at_zero, column(*(math.lgamma(len(of_prompt) + 1) for of_prompt in scores)))


def test_pl_dpo_has_finite_gradients_where_lists_differ_in_length() -> None:
    given_ = ranked([[1.0, 0.5], [4000.0, -4000.0, 0.0, 3.0], [-5000.0, 5000.0, 1.0]], 0.1)
    leaf = given_.logps.clone().requires_grad_(True)
    load_method("loss", "pl-dpo")(replace(given_, logps=leaf)).sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_sft_equals_golden_values() -> None:
    chosen = unpaired("chosen", 1)
    torch.testing.assert_close(load_method("loss", "sft")(chosen), column(12, 30.5, 8.25, 20))
    by_token = load_method("loss", "sft", mean="tokens")(chosen)
    assert float(by_token.mean()) == pytest.approx((12 + 30.5 + 8.25 + 20) / (10 + 20 + 6 + 16), rel=1e-12)


def test_sft_of_tokens_refuses_log_probs_that_are_no_sums() -> None:
    with pytest.raises(ValueError, match="not aggregation 'mean'"):
        load_method("loss", "sft", mean="tokens")(replace(unpaired("chosen", 1), aggregation="mean"))


def test_sft_equals_transformers() -> None:
    """Its language-modelling loss on the chosen responses, the mean over all their tokens."""
    from alignzoo.logprobs.logps import padded_logps
    from alignzoo.objective.objective import Objective
    from alignzoo.objective.terms import Term
    from alignzoo.testing.tiny import batch_of, pair_rows, tiny_model

    model, batch = tiny_model(), batch_of(pair_rows(5, seed=3))
    sft = Term(load_method("loss", "sft", mean="tokens"), "sft", "chosen", coupled=True)
    ours = Objective([sft]).value(padded_logps(model, batch))
    chosen = slice(0, None, 2)
    labels = batch.input_ids[chosen].masked_fill(~batch.response_mask[chosen], -100)
    inputs = {"input_ids": batch.input_ids[chosen], "attention_mask": batch.attention_mask[chosen]}
    theirs = model(**inputs, labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)  # theirs is fp32
