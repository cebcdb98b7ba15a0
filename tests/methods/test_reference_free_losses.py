"""Losses without a reference: their parts and limits. TRL's CPO family is in test_trl_losses.py."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from golden import golden_pairs
from hypothesis import example, given
from hypothesis import strategies as st

from alignzoo import PairBatch, load_method
from alignzoo.plugin import Composition, registry

close = torch.testing.assert_close
averages = st.lists(st.tuples(st.floats(-30, -1e-3), st.floats(-30, -1e-3)), min_size=1, max_size=8)


def pairs_of_averages(given_: list[tuple[float, float]]) -> PairBatch:
    """Pairs with these log-probs per token, of responses of 10 and 4 tokens."""
    chosen, rejected = torch.tensor(given_, dtype=torch.float64).unbind(-1)
    lengths = torch.full_like(chosen, 10.0), torch.full_like(chosen, 4.0)
    return PairBatch(
        chosen_logps=10 * chosen, rejected_logps=4 * rejected, chosen_lengths=lengths[0], rejected_lengths=lengths[1]
    )


def test_slic_is_its_calibration_and_likelihood() -> None:
    pairs = golden_pairs()
    calibration = torch.tensor([0.0, 3.5, 0.25, 0.0], dtype=torch.float64)
    close(load_method("loss", "slic", nll_weight=0.0)(pairs), calibration)
    close(load_method("loss", "slic", nll_weight=0.3)(pairs), calibration - 0.3 * pairs.chosen_logps)


def test_cpo_without_likelihood_is_dpo_under_a_uniform_reference() -> None:
    pairs = golden_pairs()
    zero = torch.zeros_like(pairs.chosen_logps)
    dpo = load_method("loss", "dpo", beta=0.2)(replace(pairs, ref_chosen_logps=zero, ref_rejected_logps=zero))
    close(load_method("loss", "cpo", beta=0.2, alpha=0.0)(pairs), dpo)


def test_the_likelihood_of_cpo_is_not_divided_twice() -> None:
    """Under --aggregation mean the log-probs are averages already."""
    pairs = golden_pairs()
    mean = replace(pairs, chosen_logps=pairs.per_token()[0], rejected_logps=pairs.per_token()[1], aggregation="mean")
    likelihood = load_method("loss", "cpo", alpha=1.0)(mean) - load_method("loss", "cpo", alpha=0.0)(mean)
    close(likelihood, -pairs.per_token()[0])


def test_orpo_equals_trl() -> None:
    """TRL's odds ratio term, in its fp32; it is subtracted from a likelihood, which TRL averages over the batch."""
    pytest.importorskip("trl")
    from trl.experimental.orpo import ORPOTrainer

    settings = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    pairs = golden_pairs()
    theirs, chosen, rejected, *_ = ORPOTrainer.odds_ratio_loss(settings, *pairs.per_token())  # type: ignore[arg-type]
    ours = load_method("loss", "orpo", odds_weight=0.3)
    close(ours(pairs) + pairs.per_token()[0], -theirs.double(), rtol=1e-6, atol=1e-7)
    close(ours.rewards(pairs), (chosen.double(), rejected.double()), rtol=1e-6, atol=1e-7)


@example(given_=[(-1e-3, -0.05), (-1e-5, -1e-3)])
@given(given_=averages)
def test_the_odds_of_orpo_are_odds(given_: list[tuple[float, float]]) -> None:
    """−log σ of a log odds ratio is log(1 + odds_l/odds_w)."""
    pairs = pairs_of_averages(given_)
    p_w, p_l = (m.exp() for m in pairs.per_token())
    ratio = (p_l / (1 - p_l)) / (p_w / (1 - p_w))
    odds = load_method("loss", "orpo", odds_weight=1.0)(pairs) + pairs.per_token()[0]
    close(odds, torch.log1p(ratio), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orpo_is_finite_at_certainty(dtype: torch.dtype) -> None:
    """A response of probability 1 has infinite odds; and both branches of log(1 − e^m) meet at −log 2."""
    averages_ = torch.tensor([0.0, -1e-9, -0.6931471, -0.6931472, -200.0], dtype=dtype, requires_grad=True)
    one = torch.ones(5, dtype=dtype)
    pairs = PairBatch(averages_, averages_.flip(0), one, one)
    values = load_method("loss", "orpo")(pairs)
    (gradient,) = torch.autograd.grad(values.sum(), averages_)
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()


def test_alphapo_of_small_alpha_is_simpo() -> None:
    pairs = golden_pairs()
    simpo = load_method("loss", "simpo", beta=2.5, gamma_beta_ratio=0.3)
    exactly = load_method("loss", "alphapo", beta=2.5, gamma_beta_ratio=0.3, alpha=0.0)
    close(exactly(pairs), simpo(pairs), rtol=0, atol=0)
    close(exactly.rewards(pairs), simpo.rewards(pairs), rtol=0, atol=0)
    for alpha in (1e-7, -1e-7):
        nearly = load_method("loss", "alphapo", beta=2.5, gamma_beta_ratio=0.3, alpha=alpha)
        close(nearly(pairs), simpo(pairs), atol=1e-5, rtol=0)


@given(given_=averages, alpha=st.floats(-2, 1).filter(lambda alpha: abs(alpha) > 1e-3))
def test_alphapo_rewards_are_powers_of_the_likelihood(given_: list[tuple[float, float]], alpha: float) -> None:
    pairs = pairs_of_averages(given_)
    rewards = load_method("loss", "alphapo", beta=1.0, alpha=alpha).rewards(pairs)
    for reward, m in zip(rewards, pairs.per_token(), strict=True):
        close(reward, (1 - m.exp() ** -alpha) / alpha, rtol=1e-9, atol=1e-9)


def test_gapo_is_simpo_under_its_geometry() -> None:
    found = registry().find("loss", "gapo")
    assert isinstance(found, Composition)
    assert found.flags() == "--loss simpo --geometry gapo"
