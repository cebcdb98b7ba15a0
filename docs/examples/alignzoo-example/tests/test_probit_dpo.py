"""probit-dpo has the values of its formula, also where a naive form has none."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from alignzoo import PairBatch

from alignzoo_example.probit_dpo import ProbitDPO, ProbitDPOOptions, log_normal_cdf


def pairs(log_ratios: torch.Tensor) -> PairBatch:
    """Pairs whose difference of log-ratios is given, ``(B,)``."""
    zeros, tokens = torch.zeros_like(log_ratios), torch.full_like(log_ratios, 8)
    return PairBatch(log_ratios, zeros, tokens, tokens, ref_chosen_logps=zeros, ref_rejected_logps=zeros)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_value_equals_the_standard_library(beta: float) -> None:
    h = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64) / beta
    expected = [-math.log(NormalDist().cdf(beta * float(value))) for value in h]
    found = ProbitDPO(ProbitDPOOptions(beta=beta))(pairs(h))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tails_are_accurate(dtype: torch.dtype) -> None:
    """Against Φ(−x) = φ(x)/x·(1 − 1/x² + 3/x⁴ − …) and its derivative, x + 1/x − 2/x³ + …"""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    for x in (50.0, 300.0, 5000.0):
        at = torch.tensor(-x, dtype=dtype, requires_grad=True)
        value = log_normal_cdf(at)
        value.backward()
        expected = -(x**2) / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-1 / x**2 + 3 / x**4)
        assert value.item() == pytest.approx(expected, rel=tolerance)
        assert float(at.grad) == pytest.approx(x + 1 / x - 2 / x**3, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_value_and_gradient_are_finite_at_extreme_margins(dtype: torch.dtype) -> None:
    h = torch.tensor([-5000.0, -100, -5, -1e-30, 0, 1e-30, 5, 100, 5000], dtype=dtype, requires_grad=True)
    value = ProbitDPO(ProbitDPOOptions(beta=1.0))(pairs(h))
    value.sum().backward()
    assert value.dtype == dtype
    assert value.isfinite().all()
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert (h.grad <= 0).all(), "a larger margin is never worse"
    assert float(h.grad[0]) == pytest.approx(-5000, rel=1e-2)
    assert float(h.grad[-1]) == 0


def test_gradient_is_that_of_the_value() -> None:
    x = torch.linspace(-8, 8, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_normal_cdf, x)


def test_the_two_sides_of_zero_meet() -> None:
    at = torch.tensor([-1e-12, 0.0, 1e-12], dtype=torch.float64, requires_grad=True)
    value = log_normal_cdf(at)
    value.sum().backward()
    torch.testing.assert_close(value, torch.full_like(value, math.log(0.5)), rtol=0, atol=1e-11)
    torch.testing.assert_close(at.grad, torch.full_like(at, math.sqrt(2 / math.pi)), rtol=0, atol=1e-11)


def test_opposite_labels_have_probabilities_that_add_up_to_one() -> None:
    h = torch.linspace(-4, 4, 9, dtype=torch.float64)
    loss = ProbitDPO(ProbitDPOOptions(beta=0.7))
    both = torch.exp(-loss(pairs(h))) + torch.exp(-loss(pairs(h).swap()))
    torch.testing.assert_close(both, torch.ones_like(h))
