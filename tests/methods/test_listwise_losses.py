"""Losses of ranked lists: what they equal."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import column, ranked
from golden import golden_pairs, golden_responses
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.testing.sample import sample_of

PL = [[0.2, -0.1, 0.3, -0.4]]
"""The scores s of METHODS-2's list, best first."""
LISTS = st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=6), min_size=1, max_size=4)


def averaged(averages: list[float], scores: list[float], lengths: list[float]) -> ResponseBatch:
    """One list with these average log-probs and scores, best first."""
    return ResponseBatch(
        logps=column(*averages) * column(*lengths),
        lengths=column(*lengths),
        prompt=torch.zeros(len(averages), dtype=torch.long),
        ranks=torch.arange(len(averages)),
        scores=column(*scores),
    )


LIST = averaged([-1.2, -1.5, -1.1, -2.0], [2.0, 1.0, 0.5, -1.0], [4.0, 6.0, 5.0, 3.0])


@pytest.mark.parametrize(
    ("name", "options", "scores", "expected"),
    [
        ("all-pairs-dpo", {}, None, 0.601133),
        ("lipo-lambda", {"labels": "win-rate"}, None, 0.797255),
        ("lipo-lambda", {"labels": "places"}, None, 5.496438),
        ("lipo-lambda", {"labels": "scores"}, (3.0, 2.0, 1.0, 0.0), 5.496438),
        ("lipo-lambda", {"labels": "scores"}, (1.0, 2 / 3, 1 / 3, 0.0), 0.797255),
    ],
)
def test_listwise_losses_equal_golden_values(
    name: str, options: dict[str, Any], scores: tuple[float, ...] | None, expected: float
) -> None:
    given_ = ranked(PL, 0.5)
    given_ = given_ if scores is None else replace(given_, scores=column(*scores))
    found = load_method("loss", name, beta=0.5, **options)(given_)
    torch.testing.assert_close(found, column(expected), atol=1e-6, rtol=0)


def test_pro_equals_golden_value() -> None:
    """The ranking term, and with it the imitation of the best, whose log-prob is 4·(−1.2)."""
    torch.testing.assert_close(load_method("loss", "pro", sft_weight=0.0)(LIST), column(5.582365), atol=1e-6, rtol=0)
    whole = load_method("loss", "pro", sft_weight=0.05)(LIST)
    torch.testing.assert_close(whole, column(5.582365 + 0.05 * 9 * 4.8), atol=1e-6, rtol=0)


def test_pro_takes_averages_as_they_come() -> None:
    """Under ``--aggregation mean`` log-probs are averages already; the imitated one is a sum either way."""
    pro = load_method("loss", "pro")
    means = replace(LIST, logps=LIST.logps / LIST.lengths, aggregation="mean")
    torch.testing.assert_close(pro(means), pro(LIST), atol=1e-12, rtol=0)
    torch.testing.assert_close(pro.rewards(means), pro.rewards(LIST), atol=1e-12, rtol=0)


@given(scores=LISTS)
def test_pro_with_equal_temperatures_is_plackett_luce(scores: list[list[float]]) -> None:
    given_ = replace(ranked(scores, 1.0), ref_logps=None, aggregation="mean")
    pl = load_method("loss", "pl-dpo", beta=1.0)(replace(given_, ref_logps=torch.zeros_like(given_.logps)))
    pro = load_method("loss", "pro", temperatures="equal", sft_weight=0.0)(given_)
    torch.testing.assert_close(pro, pl, atol=1e-9, rtol=1e-9)


@given(scores=LISTS)
def test_all_pairs_dpo_is_the_mean_of_dpo_per_prompt(scores: list[list[float]]) -> None:
    given_ = ranked(scores, 0.1)
    found = load_method("loss", "all-pairs-dpo", beta=0.1)(given_)
    dpo = load_method("loss", "dpo", beta=0.1)
    for i in range(len(scores)):
        own = given_.of_prompts(torch.arange(len(scores)) == i)
        torch.testing.assert_close(found[i], dpo(own.pairs()).mean(), atol=1e-12, rtol=1e-9)


@given(scores=LISTS)
def test_lipo_lambda_is_its_formula(scores: list[list[float]]) -> None:
    found = load_method("loss", "lipo-lambda", beta=0.1)(ranked(scores, 0.1))
    s = ranked(scores, 0.1)
    s_all = (0.1 * s.log_ratios()).tolist()
    start = 0
    for value, of_prompt in zip(found.tolist(), scores, strict=True):
        k = len(of_prompt)
        own = s_all[start : start + k]
        start += k
        near = 1e-6  # rewards closer than this are equal
        rank = [
            1 + sum(o > own[i] + near or (abs(o - own[i]) <= near and j < i) for j, o in enumerate(own))
            for i in range(k)
        ]
        expected = 0.0
        for i, j in itertools.combinations(range(k), 2):
            gain = abs(2 ** ((k - 1 - i) / (k - 1)) - 2 ** ((k - 1 - j) / (k - 1)))
            discount = abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
            expected += gain * discount * math.log1p(math.exp(own[j] - own[i]))
        assert value == pytest.approx(expected, rel=1e-9)


def test_lipo_lambda_drops_ties_and_learns_from_the_first_step_on() -> None:
    given_ = replace(ranked([[0.0, 0.0, 0.0]], 0.1), scores=column(1.0, 1.0, 0.0))
    lipo = load_method("loss", "lipo-lambda", labels="scores")
    leaf = given_.logps.clone().requires_grad_(True)
    lipo(replace(given_, logps=leaf)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[2] > 0, "at the reference, too, there is a gradient"
    assert not lipo(replace(given_, scores=column(1.0, 1.0, 1.0))).any()


def test_listwise_losses_of_two_are_losses_of_pairs() -> None:
    """Of two responses all-pairs is DPO, and LiPO-λ with win rates DPO weighted by |1/ln 2 − 1/ln 3|."""
    dpo = load_method("loss", "dpo", beta=0.1)
    for given_, pairs in (
        (golden_responses(), golden_pairs()),
        (golden_responses().swap(), golden_pairs().swap()),
    ):
        found = load_method("loss", "all-pairs-dpo", beta=0.1)(given_)
        torch.testing.assert_close(found, dpo(pairs), atol=0, rtol=1e-12)
        lipo = load_method("loss", "lipo-lambda", beta=0.1)(given_)
        torch.testing.assert_close(lipo, dpo(pairs) * (1 / math.log(2) - 1 / math.log(3)), atol=0, rtol=1e-12)


def triples() -> ResponseBatch:
    """Three lists of 2, 3 and 4 responses."""
    return ranked([[1.0, -2.0], [0.5, 2.0, -1.0], [0.1, 0.7, -3.0, 1.0]], 1.0)


@pytest.mark.parametrize(
    ("nll", "per"), [("tokens", (14 / 3, 14 / 3, 14 / 3)), ("average", (4, 3, 7)), ("sum", (1, 1, 1))]
)
def test_tpo_reads_the_best_the_second_and_the_last(nll: str, per: tuple[float, ...]) -> None:
    given_ = replace(triples(), lengths=column(4, 5, 3, 6, 2, 7, 8, 9, 5))
    gold, chosen, rejected = torch.tensor([0, 2, 5]), torch.tensor([0, 3, 6]), torch.tensor([1, 4, 8])
    preference = -F.logsigmoid(0.2 * (given_.logps[chosen] - given_.logps[rejected]))
    expected = preference - 0.7 * given_.logps[gold] / column(*per)
    found = load_method("loss", "tpo", beta=0.2, alpha=0.7, nll=nll)(given_)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    if nll == "tokens":  # over the step it is a mean of the gold tokens
        imitation = (found - preference).mean()
        torch.testing.assert_close(imitation, -0.7 * given_.logps[gold].sum() / 14, atol=1e-12, rtol=0)


@pytest.mark.parametrize("nll", ["average", "sum"])
def test_tpo_of_two_is_cpo(nll: str) -> None:
    tpo = load_method("loss", "tpo", beta=0.1, alpha=0.6, nll=nll)
    cpo = load_method("loss", "cpo", beta=0.1, alpha=0.6, nll=nll)
    torch.testing.assert_close(tpo(golden_responses()), cpo(golden_pairs()), atol=1e-12, rtol=0)
    preference = load_method("loss", "tpo", beta=0.1, alpha=0.0)(golden_responses())
    torch.testing.assert_close(preference, column(0.575939, 0.825939, 0.656350, 0.241008), atol=1e-6, rtol=0)


def test_tpo_l_without_imitation_is_simpo() -> None:
    simpo = load_method("loss", "simpo", beta=2.0, gamma_beta_ratio=0.25)(golden_pairs())
    for given_ in (golden_responses(), replace(golden_responses(), paired=False)):
        found = load_method("loss", "tpo-l", beta=2.0, gamma=0.5, alpha=0.0)(given_)
        torch.testing.assert_close(found, simpo, atol=0, rtol=1e-12)


def test_tpo_l_takes_averages_as_they_come() -> None:
    given_ = triples()
    means = replace(given_, logps=given_.logps / given_.lengths, aggregation="mean")
    tpo = load_method("loss", "tpo-l")
    torch.testing.assert_close(tpo(means), tpo(given_), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["pl-dpo", "all-pairs-dpo", "lipo-lambda", "pro", "tpo", "tpo-l"])
def test_listwise_losses_read_ranks_and_not_places(name: str) -> None:
    loss, given_ = load_method("loss", name), sample_of("lists")
    shuffled = torch.randperm(len(given_), generator=torch.Generator().manual_seed(3))
    shuffled = shuffled[torch.argsort(given_.prompt[shuffled], stable=True)]  # within prompts
    torch.testing.assert_close(loss(given_.rows(shuffled)), loss(given_), atol=1e-12, rtol=0)


def test_listwise_losses_say_that_scores_are_missing() -> None:
    for name, options in (("pro", {}), ("lipo-lambda", {"labels": "scores"})):
        with pytest.raises(ValueError, match="no scores"):
            load_method("loss", name, **options)(triples())
    assert load_method("loss", "plackett-luce")(triples()).shape == (3,)
