"""Wrappers that read more of the policy: wpo and wdpo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import PairBatch, load_method
from alignzoo.testing.sample import leaves, sample

close = torch.testing.assert_close
NORMS = {
    "chosen_embedding_norms": (3.0, 0.5, 2.0, 7.0),
    "rejected_embedding_norms": (1.0, 4.0, 0.0, 2.5),
}


def collided(pairs: PairBatch, **options: Any) -> torch.Tensor:
    weights: torch.Tensor = load_method("robust", "wpo", **options).of_pairs(pairs)
    return weights


def test_wpo_weights() -> None:
    """exp of the mean over tokens of log π(y_t) − log Σ_v π(v)², of both responses; capped at 1, and no gradient."""
    pairs = sample()
    exponents = [
        (getattr(pairs, f"{side}_logps") - getattr(pairs, f"{side}_collisions")) / getattr(pairs, f"{side}_lengths")
        for side in ("chosen", "rejected")
    ]
    expected = sum(exponents).exp()  # type: ignore[union-attr]
    assert bool((expected > 1).any())
    close(collided(pairs, cap=False), expected)
    close(collided(pairs), expected.clamp(max=1))
    close(collided(pairs.swap()), collided(pairs))
    inputs, wanted = leaves(pairs)
    loss = load_method("loss", "dpo")
    found = load_method("robust", "wpo").per_pair(loss, inputs)
    close(found, expected.clamp(max=1) * loss(pairs))
    gradient = torch.autograd.grad(found.sum(), wanted["chosen_logps"])[0]
    plain = torch.autograd.grad(loss(inputs).sum(), wanted["chosen_logps"])[0]
    close(gradient, expected.clamp(max=1) * plain)


def test_wpo_of_means_is_wpo_of_sums() -> None:
    pairs = sample()
    means = replace(
        pairs,
        chosen_logps=pairs.chosen_logps / pairs.chosen_lengths,
        rejected_logps=pairs.rejected_logps / pairs.rejected_lengths,
        aggregation="mean",
    )
    close(collided(means), collided(pairs))
    close(collided(replace(pairs, aggregation="sum")), collided(pairs))


# ---------------------------------------------------------------- wdpo


@given(beta=st.floats(0.05, 2), rho=st.floats(0, 2))
def test_wdpo_under_dpo(beta: float, rho: float) -> None:
    """−log σ(z) + ρ·β²·σ(−z)²·(N_w + N_l); its slope in z is −σ(−z) − 2ρβ²σ(−z)²σ(z)·(N_w + N_l)."""
    inputs, wanted = leaves(golden_pairs(**NORMS))
    values = load_method("robust", "wdpo", rho=rho).per_pair(load_method("loss", "dpo", beta=beta), inputs)
    z = beta * torch.tensor([2, -3, 1, 5.5], dtype=torch.float64)
    norms = torch.tensor([4, 4.5, 2, 9.5], dtype=torch.float64)
    miss = torch.sigmoid(-z)
    close(values, -torch.nn.functional.logsigmoid(z) + rho * beta**2 * miss**2 * norms)
    grads = torch.autograd.grad(values.sum(), list(wanted.values()))
    by_name = dict(zip(wanted, grads, strict=True))
    close(by_name["chosen_logps"], beta * (-miss - 2 * rho * beta**2 * miss**2 * torch.sigmoid(z) * norms))
    close(by_name["rejected_logps"], -by_name["chosen_logps"])
    close(by_name["chosen_embedding_norms"], rho * beta**2 * miss**2)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo"])
def test_wdpo_without_a_penalty(loss: str) -> None:
    goal = load_method("loss", loss)
    close(load_method("robust", "wdpo", rho=0.0).per_pair(goal, sample()), goal(sample()), atol=0, rtol=0)


def test_wdpo_is_the_same_without_gradients() -> None:
    wrapper, loss = load_method("robust", "wdpo"), load_method("loss", "dpo")
    expected = wrapper.per_pair(loss, leaves(sample())[0]).detach()
    with torch.no_grad():
        found = wrapper.per_pair(loss, sample())
    assert not found.requires_grad
    assert torch.equal(found, expected)


def test_wdpo_of_means_is_wdpo_of_sums() -> None:
    """SimPO divides by the lengths itself, or reads means; the embeddings are the same."""
    pairs, simpo, wrapper = sample(), load_method("loss", "simpo"), load_method("robust", "wdpo", rho=1.0)
    means = replace(
        pairs,
        chosen_logps=pairs.chosen_logps / pairs.chosen_lengths,
        rejected_logps=pairs.rejected_logps / pairs.rejected_lengths,
        aggregation="mean",
    )
    close(wrapper.per_pair(simpo, means), wrapper.per_pair(simpo, pairs))


def test_wdpo_under_and_around_smoothed_labels() -> None:
    """Around cdpo it differentiates the mixed loss; under it, each label's loss has a penalty."""
    pairs, rho, epsilon = golden_pairs(**NORMS), 0.7, 0.2
    dpo = load_method("loss", "dpo", beta=0.5)
    wdpo, cdpo = load_method("robust", "wdpo", rho=rho), load_method("robust", "cdpo", epsilon=epsilon)
    z = 0.5 * torch.tensor([2, -3, 1, 5.5], dtype=torch.float64)
    norms = torch.tensor([4, 4.5, 2, 9.5], dtype=torch.float64)
    around = wdpo.per_pair(lambda given: cdpo.per_pair(dpo, given), pairs)
    slope = 0.5 * (torch.sigmoid(z) - (1 - epsilon))
    close(around, cdpo.per_pair(dpo, pairs) + rho * slope**2 * norms)
    under = cdpo.per_pair(lambda given: wdpo.per_pair(dpo, given), pairs)
    penalties = (1 - epsilon) * torch.sigmoid(-z) ** 2 + epsilon * torch.sigmoid(z) ** 2
    close(under, cdpo.per_pair(dpo, pairs) + rho * 0.25 * penalties * norms)
