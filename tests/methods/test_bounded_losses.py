"""Bounded losses: symmetry, slopes and limits. Golden values are in test_losses.py, TRL in test_trl_losses.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st
from pairs_of_ratios import pairs_of

from alignzoo import load_method

close = torch.testing.assert_close
log_ratios = st.lists(st.tuples(st.floats(-80, 80), st.floats(-80, 80)), min_size=1, max_size=8)


def slopes(name: str, margins: torch.Tensor, **options: Any) -> torch.Tensor:
    """dℓ/dh of pairs with these margins, all in the chosen response's log-ratio."""
    leaf = margins.clone().requires_grad_(True)
    loss = load_method("loss", name, beta=1.0, **options)
    (found,) = torch.autograd.grad(loss(pairs_of(leaf, torch.zeros_like(leaf))).sum(), leaf)
    return found


@pytest.mark.parametrize(("shape", "total"), [("sigmoid", 1.0), ("symmetric-ramp", 1.0), ("unhinged", 2.0)])
@given(ratios=log_ratios)
def test_sympo_is_symmetric(shape: str, total: float, ratios: list[tuple[float, float]]) -> None:
    """A loss and that of the opposite label add up to a constant; random flips then scale the risk and no more."""
    pairs = pairs_of(*torch.tensor(ratios, dtype=torch.float64).unbind(-1))
    loss = load_method("loss", "sympo", shape=shape, beta=0.3)
    close(loss(pairs) + loss(pairs.swap()), torch.full((len(ratios),), total, dtype=torch.float64))


def test_the_plain_ramp_of_sympo_is_not_symmetric() -> None:
    loss, pairs = load_method("loss", "sympo", shape="ramp", beta=1.0), pairs_of([0.0, 5.0], [0.0, 0.0])
    assert (loss(pairs) + loss(pairs.swap())).tolist() == [2.0, 1.0]


def test_sympo_clips_rewards_and_not_margins() -> None:
    """Both log-ratios are far on the same side: the margin of the clipped rewards is 0."""
    loss, pairs = load_method("loss", "sympo", shape="unhinged", beta=0.1, clip=10.0), pairs_of([300.0], [200.0])
    assert loss(pairs).tolist() == [1.0]


@given(margins=st.lists(st.floats(-200, 200), min_size=1, max_size=8), gamma=st.floats(0.2, 6))
def test_the_gradient_of_holder_dpo_redescends(margins: list[float], gamma: float) -> None:
    h = torch.tensor(margins, dtype=torch.float64)
    p, not_p = torch.sigmoid(h), torch.sigmoid(-h)
    close(slopes("holder-dpo", h, gamma=gamma), -gamma * (1 + gamma) * p**gamma * not_p**2, atol=1e-12, rtol=1e-6)
    ends = slopes("holder-dpo", torch.tensor([-400.0, 400.0], dtype=torch.float64), gamma=gamma)
    assert float(ends.abs().max()) < 1e-30


@given(alpha=st.floats(1, 50))
def test_the_slope_of_ropo_is_at_most_1(alpha: float) -> None:
    """It is −1 where σ(−t) = (1+α)/(2α), which is what the factors of the two parts are for."""
    grid = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    assert float(slopes("ropo", grid, alpha=alpha).min()) >= -1 - 1e-9
    if alpha > 1.001:
        steepest = -torch.logit(torch.tensor([(1 + alpha) / (2 * alpha)], dtype=torch.float64))
        assert float(slopes("ropo", steepest, alpha=alpha)) == pytest.approx(-1, rel=1e-9)


def test_ropo_of_large_alpha_is_symmetric() -> None:
    pairs = golden_pairs()
    close(load_method("loss", "ropo", alpha=1e9)(pairs), 4 * load_method("loss", "sympo")(pairs), atol=1e-7, rtol=0)


def test_gce_lies_between_dpo_and_the_absolute_error() -> None:
    pairs = golden_pairs()
    dpo, error = load_method("loss", "dpo", beta=0.1)(pairs), load_method("loss", "sympo", beta=0.1)(pairs)
    close(load_method("loss", "gce", beta=0.1, q=1e-9)(pairs), dpo, atol=1e-8, rtol=0)
    close(load_method("loss", "gce", beta=0.1, q=1.0)(pairs), error, atol=1e-12, rtol=0)
    between = load_method("loss", "gce", beta=0.1, q=0.5)(pairs)
    assert bool(((between < dpo) & (between > error)).all())


@given(margins=st.lists(st.floats(-50, 50), min_size=1, max_size=8), q=st.floats(0.05, 1), k=st.floats(0.05, 0.95))
def test_truncated_gce_is_constant_below_the_threshold(margins: list[float], q: float, k: float) -> None:
    h = torch.tensor(margins, dtype=torch.float64)
    pairs = pairs_of(h, torch.zeros_like(h))
    plain = load_method("loss", "gce", beta=1.0, q=q)(pairs)
    truncated = load_method("loss", "gce", beta=1.0, q=q, truncation=k)(pairs)
    close(truncated, plain.clamp(max=(1 - k**q) / q))
    below = torch.sigmoid(h) < k - 1e-9
    assert not slopes("gce", h, q=q, truncation=k)[below].any()


def test_discopop_is_the_published_blend_with_its_bump() -> None:
    """Where the product of a vanishing and an exploding factor can still be taken; minimum and maximum as reported."""
    t = torch.linspace(-8, 8, 641, dtype=torch.float64)
    k = torch.sigmoid(t / 0.05)
    loss = load_method("loss", "discopop", beta=1.0, tau=0.05)(pairs_of(t, torch.zeros_like(t)))
    close(loss, (1 - k) * torch.log1p(torch.exp(-t)) + k * torch.exp(-t), atol=1e-10, rtol=1e-10)
    near = torch.linspace(-0.3, 0.3, 601, dtype=torch.float64)
    values = load_method("loss", "discopop", beta=1.0, tau=0.05)(pairs_of(near, torch.zeros_like(near)))
    lowest = int(values[:300].argmin())
    assert float(near[lowest]) == pytest.approx(-0.119, abs=2e-3)
    assert float(values[lowest]) == pytest.approx(0.786, abs=1e-3)
    highest = int(values[300:].argmax()) + 300
    assert float(near[highest]) == pytest.approx(0.072, abs=2e-3)
    assert float(values[highest]) == pytest.approx(0.878, abs=1e-3)


@given(ratios=log_ratios)
def test_apo_zero_anchors_each_response_on_its_own(ratios: list[tuple[float, float]]) -> None:
    """Its parts are probabilities: with the opposite label they are the other way round, and add up to 2."""
    pairs = pairs_of(*torch.tensor(ratios, dtype=torch.float64).unbind(-1))
    loss = load_method("loss", "apo-zero")
    close(loss(pairs) + loss(pairs.swap()), torch.full((len(ratios),), 2.0, dtype=torch.float64))
    values = loss(pairs)
    assert bool(((values > 0) & (values < 2)).all())


def test_apo_down_lowers_both_responses_at_the_reference() -> None:
    """At π = π_ref, σ' = ¼: the chosen response has no gradient left, the rejected one −¼·β of the margin's."""
    leaves = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    value = load_method("loss", "apo-down", beta=0.4)(pairs_of(*leaves)).sum()
    chosen, rejected = torch.autograd.grad(value, leaves)
    assert (chosen.item(), rejected.item()) == (pytest.approx(0, abs=1e-15), pytest.approx(0.1))


def test_hinge_is_0_from_its_margin_on() -> None:
    margins = torch.tensor([-4.0, 0.0, 19.9, 20.1, 500.0], dtype=torch.float64)
    pairs = pairs_of(margins, torch.zeros_like(margins))
    values = load_method("loss", "hinge", beta=0.05)(pairs)
    close(values, torch.tensor([1.2, 1.0, 0.005, 0.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0)
    assert not math.isclose(float(values[2]), 0.0)
