"""Losses under other divergences: their links, limits and detached parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from alignzoo_losses.divergence import links
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st
from pairs_of_ratios import pairs_of

from alignzoo import load_method
from alignzoo.errors import AlignzooError

close = torch.testing.assert_close
Function = Callable[[torch.Tensor], torch.Tensor]

F_OF_LINK: dict[str, tuple[Function, Function]] = {
    "reverse-kl": (lambda u: u * u.log() - u, links.reverse_kl),
    "forward-kl": (lambda u: -u.log(), links.forward_kl),
    "js": (lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(), links.jensen_shannon),
    "alpha": (
        lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.3 * (0.3 - 1)),
        lambda x: links.alpha_divergence(x, 0.3),
    ),
    "chi-po": (lambda u: 0.5 * (u - 1) ** 2 + u * u.log(), links.chi_squared_kl),
    "squaredpo": (lambda u: 0.5 * u.log() ** 2, links.squared_log),
}
"""f of every divergence, and its link x ↦ f'(e^x)."""


@pytest.mark.parametrize("name", F_OF_LINK)
@given(x=st.lists(st.floats(-15, 15), min_size=1, max_size=8))
def test_links_are_derivatives_of_f(name: str, x: list[float]) -> None:
    f, link = F_OF_LINK[name]
    ratios = torch.tensor(x, dtype=torch.float64)
    u = ratios.exp().requires_grad_(True)
    (derivative,) = torch.autograd.grad(f(u).sum(), u)
    close(link(ratios), derivative, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", F_OF_LINK)
def test_links_neither_overflow_nor_stop(name: str) -> None:
    """Beyond 40 nats, in fp32: values and slopes are finite, and a slope that was not small does not vanish."""
    link = F_OF_LINK[name][1]
    x = torch.tensor([-5000.0, -500.0, -150.0, 150.0, 500.0, 5000.0], requires_grad=True)
    values = link(x)
    (slope,) = torch.autograd.grad(values.sum(), x)
    assert torch.isfinite(values).all()
    assert torch.isfinite(slope).all()
    if name != "squaredpo":
        assert bool((values[1:] >= values[:-1]).all()), "a link of a convex f rises"
    if name != "js":
        assert bool((slope[:3] > 0).all()), "an unlikely response can still recover"


def test_the_exponential_is_smooth_where_its_tangent_begins() -> None:
    x = torch.tensor([39.999999, 40.0, 40.000001], dtype=torch.float64, requires_grad=True)
    for exponential in (links.exp, links.expm1):
        values = exponential(x)
        (slope,) = torch.autograd.grad(values.sum(), x)
        close(values, torch.exp(x.detach()), rtol=1e-11, atol=0)
        close(slope, torch.full_like(slope, math.exp(40)), rtol=1e-5, atol=0)


def test_f_dpo_has_dpo_as_a_limit() -> None:
    dpo = load_method("loss", "dpo", beta=0.3)(golden_pairs())
    close(load_method("loss", "f-dpo", divergence="reverse-kl", beta=0.3)(golden_pairs()), dpo)
    small = load_method("loss", "f-dpo", divergence="alpha", alpha=1e-7, beta=0.3)(golden_pairs())
    close(small, dpo, atol=1e-6, rtol=0)
    forward = load_method("loss", "f-dpo", divergence="forward-kl", beta=0.3)(golden_pairs())
    close(load_method("loss", "f-dpo", divergence="alpha", alpha=1.0, beta=0.3)(golden_pairs()), forward)


def test_f_dpo_refuses_an_alpha_that_does_nothing() -> None:
    with pytest.raises(AlignzooError, match="alpha has no effect"):
        load_method("loss", "f-dpo", divergence="js", alpha=0.3)


@given(margins=st.lists(st.floats(-60, 60), min_size=1, max_size=8), epsilon=st.floats(1e-4, 0.49))
def test_exo_is_the_reverse_kl(margins: list[float], epsilon: float) -> None:
    h = torch.tensor(margins, dtype=torch.float64)
    found = load_method("loss", "exo-pair", beta=1.0, epsilon=epsilon)(pairs_of(h, torch.zeros_like(h)))
    policy = torch.stack([torch.sigmoid(h), torch.sigmoid(-h)], -1)
    labels = torch.tensor([1 - epsilon, epsilon], dtype=torch.float64).log().expand_as(policy)
    close(found, torch.nn.functional.kl_div(labels, policy, reduction="none").sum(-1), atol=1e-10, rtol=1e-8)


@given(epsilon=st.floats(1e-4, 0.45))
def test_exo_is_least_at_its_target(epsilon: float) -> None:
    target = torch.tensor([math.log((1 - epsilon) / epsilon)], dtype=torch.float64, requires_grad=True)
    value = load_method("loss", "exo-pair", beta=1.0, epsilon=epsilon)(pairs_of(target, torch.zeros(1)))
    (slope,) = torch.autograd.grad(value.sum(), target)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert float(slope) == pytest.approx(0, abs=1e-12)


def test_squaredpo_pulls_a_chosen_response_back_beyond_1_nat() -> None:
    leaf = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(load_method("loss", "squaredpo")(pairs_of(leaf, torch.zeros(3))).sum(), leaf)
    assert slope[0] < 0
    assert slope[1].abs() < 1e-12
    assert slope[2] > 0


@pytest.mark.parametrize("name", ["chi-po", "square-chi-po"])
def test_a_clipped_pair_of_chi_po_has_no_gradient(name: str) -> None:
    leaf = torch.tensor([-3.0, 0.0, 0.1], dtype=torch.float64, requires_grad=True)
    value = load_method("loss", name, beta=1.0, radius=0.5)(pairs_of(leaf, torch.zeros(3))).sum()
    (slope,) = torch.autograd.grad(value, leaf)
    assert (slope == 0).tolist() == [True, False, False]


@given(rate=st.floats(0, 0.45), ratios=st.lists(st.floats(-5, 3), min_size=2, max_size=6))
def test_square_chi_po_is_unbiased_under_flips(rate: float, ratios: list[float]) -> None:
    """The expected gradient over random flips of the labels is that of the true labels."""
    leaf = torch.tensor(ratios, dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(leaf, torch.zeros(len(ratios)))
    debiased, plain = load_method("loss", "square-chi-po", flip_rate=rate), load_method("loss", "square-chi-po")
    expected = (1 - rate) * debiased(pairs).sum() + rate * debiased(pairs.swap()).sum()
    (found,) = torch.autograd.grad(expected, leaf, retain_graph=True)
    (wanted,) = torch.autograd.grad(plain(pairs).sum(), leaf)
    close(found, wanted, rtol=1e-7, atol=1e-12)


def test_tdpo_without_kl_is_dpo() -> None:
    pairs = golden_pairs(chosen_kls=(0.0,) * 4, rejected_kls=(0.0,) * 4)
    dpo = load_method("loss", "dpo", beta=0.1)(pairs)
    for name in ("tdpo1", "tdpo2"):
        close(load_method("loss", name, beta=0.1)(pairs), dpo)
    given_ = golden_pairs(chosen_kls=(3.0, 1.0, 0.5, 2.0), rejected_kls=(0.1, 4.0, 2.0, 0.3))
    close(load_method("loss", "tdpo2", beta=0.1, alpha=0.0)(given_), dpo)


def test_only_the_chosen_kl_of_tdpo2_is_a_constant() -> None:
    pairs = golden_pairs()
    chosen, rejected = (torch.ones(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for name, flows in (("tdpo1", True), ("tdpo2", False)):
        given_ = replace(pairs, chosen_kls=chosen, rejected_kls=rejected)
        value = load_method("loss", name)(given_).sum()
        of_chosen, of_rejected = torch.autograd.grad(value, [chosen, rejected], allow_unused=True)
        assert of_rejected.all()
        assert (of_chosen is not None) == flows


@pytest.mark.parametrize("name", ["tdpo1", "tdpo2"])
def test_tdpo_says_what_it_lacks(name: str) -> None:
    with pytest.raises(ValueError, match="'reference-kl'"):
        load_method("loss", name)(golden_pairs())
    averages = replace(golden_pairs(chosen_kls=(1.0,) * 4, rejected_kls=(1.0,) * 4), aggregation="mean")
    with pytest.raises(ValueError, match="not aggregation 'mean'"):
        load_method("loss", name)(averages)
