"""Safety losses: no state of the data makes an unsafe response likelier. Golden values are in test_losses.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import golden_pairs

from alignzoo import PairBatch, load_method
from alignzoo.testing.sample import leaves, sample

close = torch.testing.assert_close
STATES = {"chosen_safe": (1, 1, 0, 0), "rejected_safe": (1, 0, 1, 0)}
"""Both safe, in order, turned round, both unsafe."""
each_loss = pytest.mark.parametrize("name", ["safedpo", "door", "w-door"])


def labelled(chosen: int, rejected: int) -> PairBatch:
    """Pairs with every field and these safety labels."""
    pairs = sample()
    one = torch.ones(len(pairs), dtype=torch.float64)
    return replace(pairs, chosen_safe=chosen * one, rejected_safe=rejected * one)


def gradients(name: str, pairs: PairBatch, **options: Any) -> dict[str, torch.Tensor]:
    """By the log-probs of both sides: of the response, plus of its tokens."""
    given, wanted = leaves(pairs)
    found = torch.autograd.grad(
        load_method("loss", name, **options)(given).sum(), list(wanted.values()), allow_unused=True
    )
    by_name = {field: grad for field, grad in zip(wanted, found, strict=True) if grad is not None}
    sides = {}
    for side in ("chosen", "rejected"):
        zero = torch.zeros(len(pairs), dtype=torch.float64)
        sides[side] = by_name.get(f"{side}_logps", zero) + by_name.get(f"{side}_token_logps", zero[:, None]).sum(-1)
    return sides


@each_loss
@pytest.mark.parametrize(("chosen", "rejected"), [(1, 0), (0, 1), (0, 0)])
def test_no_safety_loss_makes_an_unsafe_response_likelier(name: str, chosen: int, rejected: int) -> None:
    found = gradients(name, labelled(chosen, rejected))
    for side, safe in (("chosen", chosen), ("rejected", rejected)):
        if safe:
            assert bool((found[side] < 0).all()), f"the safe {side} response becomes likelier"
        else:
            assert bool((found[side] >= 0).all()), f"the unsafe {side} response does not"


@each_loss
def test_a_pair_with_one_safe_response_is_the_same_either_way_round(name: str) -> None:
    loss, pairs = load_method("loss", name), labelled(1, 0)
    close(loss(pairs), loss(pairs.swap()), rtol=0, atol=0)


@each_loss
def test_a_safety_loss_without_labels_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="'safety'"):
        load_method("loss", name)(replace(sample(), chosen_safe=None))


def test_safedpo_of_safe_responses_is_dpo() -> None:
    pairs = golden_pairs(chosen_safe=(1,) * 4, rejected_safe=(1,) * 4)
    close(load_method("loss", "safedpo", beta=0.1)(pairs), load_method("loss", "dpo", beta=0.1)(pairs))


def test_safedpo_does_not_depend_on_the_state_of_the_data() -> None:
    """The authors turn pairs round and drop those of unsafe responses before training."""
    loss, pairs = load_method("loss", "safedpo"), golden_pairs(**STATES)
    transformed = PairBatch.cat([pairs.rows(slice(0, 2)), pairs.rows(slice(2, 3)).swap()])
    close(loss(pairs)[:3], loss(transformed), rtol=0, atol=0)
    assert float(loss(pairs)[3]) == 0.0


def test_safedpo_asks_a_safe_response_for_a_margin_of_delta() -> None:
    """At a margin of Δ the pair costs log 2, what DPO charges at 0; without one, about Δ."""
    pairs = golden_pairs(chosen_safe=(1,) * 4, rejected_safe=(0,) * 4)
    assert pairs.ref_chosen_logps is not None
    level = replace(pairs, rejected_logps=pairs.ref_rejected_logps)  # type: ignore[arg-type]
    far = replace(level, chosen_logps=pairs.ref_chosen_logps + 10 / 0.1)
    near = replace(level, chosen_logps=pairs.ref_chosen_logps)
    loss = load_method("loss", "safedpo", beta=0.1, delta=10.0)
    close(loss(far), torch.full((4,), 2.0, dtype=torch.float64).log())
    close(loss(near), torch.full((4,), 10.0, dtype=torch.float64), atol=1e-4, rtol=0)


def test_door_of_harmless_pairs_is_their_likelihood() -> None:
    pairs = labelled(1, 1)
    for name in ("door", "w-door"):
        close(load_method("loss", name, alpha=0.3)(pairs), -0.7 * pairs.chosen_logps)


def test_w_door_without_guidance_is_door() -> None:
    pairs = labelled(1, 0)
    same = replace(pairs, chosen_guide_tokens=pairs.ref_chosen_token_logps)
    for sign in ("paper", "code"):
        close(load_method("loss", "w-door", sign=sign)(same), load_method("loss", "door")(pairs))


def test_w_door_weighs_the_tokens_that_the_guide_prefers() -> None:
    """Under the paper's sign; the code's are the reciprocals, and the guide is a constant either way."""
    pairs = labelled(1, 0)
    assert pairs.chosen_guide_tokens is not None
    assert pairs.ref_chosen_token_logps is not None
    ratio = pairs.chosen_guide_tokens - pairs.ref_chosen_token_logps
    given, wanted = leaves(pairs)
    found = {}
    for sign in ("paper", "code"):
        value = load_method("loss", "w-door", sign=sign, tau=2.0, alpha=0.5)(given).sum()
        (found[sign],) = torch.autograd.grad(value, [wanted["chosen_token_logps"]])
    close(found["paper"], -0.5 * torch.exp(ratio / 2) * pairs.chosen_token_mask)
    close(found["code"], -0.5 * torch.exp(-ratio / 2) * pairs.chosen_token_mask)


def test_weights_of_w_door_are_bounded_at_40() -> None:
    """e^{1000} would be infinite: a token that the reference all but rules out must not take the step with it."""
    pairs = labelled(1, 0)
    assert pairs.ref_chosen_token_logps is not None
    far = replace(pairs, chosen_guide_tokens=pairs.ref_chosen_token_logps + 5000.0)
    door, bounded = load_method("loss", "door", alpha=0.5), load_method("loss", "w-door", alpha=0.5, tau=5.0)
    assert pairs.chosen_token_logps is not None
    extra = -0.5 * (math.exp(40) - 1) * (pairs.chosen_token_mask * pairs.chosen_token_logps).sum(-1)
    close(bounded(far) - door(pairs), extra)
