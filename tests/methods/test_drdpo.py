"""Dr. DPO: its value, its weights and its limits."""

from __future__ import annotations

import pytest
import torch
from golden import DRDPO_ON_DPO, golden_pairs
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import load_method
from alignzoo.interfaces import RobustWrapper

vectors = st.lists(st.floats(-50, 50), min_size=1, max_size=12).map(lambda x: torch.tensor(x, dtype=torch.float64))
temperatures = st.floats(0.05, 50)


def test_drdpo_equals_golden_value() -> None:
    losses = load_method("loss", "dpo", beta=0.1)(golden_pairs())
    assert float(load_method("robust", "drdpo", beta_prime=1.0).objective(losses)) == pytest.approx(
        DRDPO_ON_DPO, abs=1e-6
    )


@given(losses=vectors, beta_prime=temperatures)
def test_drdpo_weights_are_the_gradient(losses: torch.Tensor, beta_prime: float) -> None:
    wrapper = load_method("robust", "drdpo", beta_prime=beta_prime)
    torch.testing.assert_close(wrapper.weights(losses), RobustWrapper.weights(wrapper, losses), atol=1e-9, rtol=1e-9)
    assert float(wrapper.weights(losses).sum()) == pytest.approx(1)


@given(losses=vectors)
def test_is_the_mean_in_the_limit_of_a_large_temperature(losses: torch.Tensor) -> None:
    value = load_method("robust", "drdpo", beta_prime=1e7).objective(losses)
    torch.testing.assert_close(value, losses.mean(), atol=1e-3, rtol=0)


@given(losses=vectors, beta_prime=temperatures)
def test_lies_between_the_least_loss_and_the_mean(losses: torch.Tensor, beta_prime: float) -> None:
    value = float(load_method("robust", "drdpo", beta_prime=beta_prime).objective(losses))
    assert float(losses.min()) - 1e-9 <= value <= float(losses.mean()) + 1e-9


def test_counts_a_high_loss_less() -> None:
    weights = load_method("robust", "drdpo").weights(torch.tensor([0.1, 0.5, 3.0]))
    assert weights[0] > weights[1] > weights[2]


@pytest.mark.parametrize("losses", [[110.0, 112.0], [5000.0, 1.0], [-5000.0, 1.0]])
def test_finite_where_the_naive_form_overflows(losses: list[float]) -> None:
    leaf = torch.tensor(losses, requires_grad=True)
    value = load_method("robust", "drdpo", beta_prime=0.5).objective(leaf)
    (grad,) = torch.autograd.grad(value, leaf)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()
