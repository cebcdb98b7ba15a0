"""Losses of single responses: what they equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import column, unpaired, with_kl
from golden import GOLDEN, golden_pairs, golden_responses
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.testing.sample import sample_of

BCO_DESIRABLE = (0.641433, 0.767603, 0.665418, 0.573208)
BCO_UNDESIRABLE = (0.647370, 0.774321, 0.671511, 0.557020)


def both_sides() -> ResponseBatch:
    """The responses of the golden pairs, one by one: the chosen are desirable, the rejected are not."""
    return golden_responses()


def test_bco_equals_golden_values() -> None:
    """The first batch: δ is the mean of its rewards, −0.00625."""
    bco = load_method("loss", "bco", beta=0.1)
    bco.observe(both_sides())
    assert float(bco.metrics(both_sides())["shift"]) == pytest.approx(-0.00625, abs=1e-12)
    values = bco(both_sides())
    torch.testing.assert_close(values[::2], column(*BCO_DESIRABLE), atol=1e-6, rtol=0)
    torch.testing.assert_close(values[1::2], column(*BCO_UNDESIRABLE), atol=1e-6, rtol=0)


@given(steps=st.lists(st.lists(st.floats(-20, 20), min_size=1, max_size=5), min_size=1, max_size=6))
def test_the_shift_of_bco_is_the_mean_of_history(steps: list[list[float]]) -> None:
    """Every response counts once, whatever the size of its step."""
    bco = load_method("loss", "bco", beta=0.3)
    for log_ratios in steps:
        bco.observe(labelled(log_ratios))
    history = [ratio for log_ratios in steps for ratio in log_ratios]
    shift = bco.metrics(labelled([0.0]))["shift"]
    assert float(shift) == pytest.approx(0.3 * sum(history) / len(history), abs=1e-9)


def labelled(log_ratios: list[float], label: int = 1) -> ResponseBatch:
    ratios = column(*log_ratios)
    return ResponseBatch(
        logps=ratios - 7,
        lengths=torch.full_like(ratios, 5),
        prompt=torch.arange(len(ratios)),
        ref_logps=torch.full_like(ratios, -7),
        labels=torch.full((len(ratios),), label),
    )


def test_bco_only_learns_its_shift_from_steps_and_resumes_with_it() -> None:
    """Evaluation calls the loss without observe(): δ stays."""
    bco, resumed = (load_method("loss", "bco") for _ in range(2))
    bco.observe(labelled([1.0, 2.0, 6.0]))
    before = bco.metrics(labelled([0.0]))["shift"].clone()
    bco(labelled([50.0, 60.0]))
    assert torch.equal(bco.metrics(labelled([0.0]))["shift"], before)
    resumed.load_state_dict(bco.state_dict())
    for each in (bco, resumed):
        each.observe(labelled([4.0]))
    assert torch.equal(bco(labelled([3.0])), resumed(labelled([3.0])))
    assert float(resumed.metrics(labelled([0.0]))["shift"]) == pytest.approx(0.1 * 13 / 4)


def test_no_gradient_flows_through_the_shift_of_bco() -> None:
    bco, given_ = load_method("loss", "bco"), both_sides()
    leaf = given_.logps.clone().requires_grad_(True)
    batch = replace(given_, logps=leaf)
    bco.observe(batch)
    bco(batch)[0].backward()
    assert leaf.grad is not None
    assert leaf.grad[0] < 0
    assert not leaf.grad[1:].any()


def test_bco_without_shift_is_bco_pair() -> None:
    bco, pair = load_method("loss", "bco", beta=0.2), load_method("loss", "bco-pair", beta=0.2)
    values = bco(both_sides())  # nothing has been observed: δ is 0
    torch.testing.assert_close(values[::2] + values[1::2], pair(golden_pairs()), atol=0, rtol=1e-12)


def test_bco_pair_of_opposite_labels_costs_the_margin_more() -> None:
    """−log σ(r) + log σ(−r) = −r, so swapping sides adds r_w − r_l."""
    bco, pairs = load_method("loss", "bco-pair"), golden_pairs()
    chosen, rejected = bco.rewards(pairs)
    torch.testing.assert_close(bco(pairs.swap()) - bco(pairs), chosen - rejected, atol=1e-12, rtol=0)


def test_kto_pair_is_the_mean_of_two_ktos() -> None:
    """Each side of the pairs is KTO's, with the other side as KL responses."""
    pairs = golden_pairs()
    log_ratios = {side: getattr(pairs, f"{side}_logps") - getattr(pairs, f"ref_{side}_logps") for side in SIDES}
    kto = load_method("loss", "kto", beta=0.3)
    desirable = kto(with_kl(unpaired("chosen", 1), log_ratios["rejected"].tolist()))
    undesirable = kto(with_kl(unpaired("rejected", -1), log_ratios["chosen"].tolist()))
    found = load_method("loss", "kto-pair", beta=0.3)(pairs)
    torch.testing.assert_close(found, (desirable + undesirable) / 2, atol=0, rtol=1e-12)


SIDES = ("chosen", "rejected")


def test_the_estimates_of_kto_pair_are_clamped_after_the_mean_and_constants() -> None:
    """The mean of b is −0.75, so z_l is 0: the gradient of a pair is its own only."""
    pairs = golden_pairs()
    chosen, rejected = (getattr(pairs, f"{side}_logps").clone().requires_grad_(True) for side in SIDES)
    kto = load_method("loss", "kto-pair")
    kto(replace(pairs, chosen_logps=chosen, rejected_logps=rejected))[0].backward()
    for grad in (chosen.grad, rejected.grad):
        assert grad[0] != 0
        assert not grad[1:].any()
    a, b = column(1, -1.5, 0.5, 2.5), column(-1, 1.5, -0.5, -3)
    expected = (torch.sigmoid(-0.1 * a) + torch.sigmoid(0.1 * (b - 0.625))) / 2
    torch.testing.assert_close(kto(pairs), expected, atol=1e-12, rtol=0)


def test_apo_zero_unpaired_adds_up_to_the_pair() -> None:
    """The golden values of apo-zero, which are of pairs, are the sum over both sides."""
    values = load_method("loss", "apo-zero-unpaired", beta=0.1)(both_sides())
    expected = column(0.950042, 1.074860, 0.975005, 0.863381)
    torch.testing.assert_close(values[::2] + values[1::2], expected, atol=1e-6, rtol=0)


def test_apo_zero_unpaired_is_kto_where_the_kl_is_0() -> None:
    given_ = with_kl(unpaired("chosen", 1), [-1.0, 0.5])
    kto, apo = load_method("loss", "kto", beta=0.4), load_method("loss", "apo-zero-unpaired", beta=0.4)
    for batch in (given_, given_.swap()):
        torch.testing.assert_close(apo(batch), kto(batch), atol=0, rtol=1e-12)


@pytest.mark.parametrize("name", ["bco", "apo-zero-unpaired"])
def test_losses_of_responses_say_what_they_lack_and_look_past_kl_responses(name: str) -> None:
    loss: Any = load_method("loss", name)
    with pytest.raises(ValueError, match="'labels'"):
        loss(replace(both_sides(), labels=None))
    with_others = sample_of("responses")
    own = with_others.rows(with_others.roles == 0)
    torch.testing.assert_close(loss(with_others), loss(own), atol=0, rtol=0)
    loss.observe(with_others)
    other = load_method("loss", name)
    other.observe(own)
    assert loss.state_dict() == other.state_dict()


def test_the_golden_values_of_this_family_are_in_the_table() -> None:
    assert {"bco-pair", "kto-pair"} <= {golden.name for golden in GOLDEN}
