"""Wrappers that read more of the policy: wpo and wdpo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from trl_dpo import dpo_step

from alignzoo import PairBatch, list_methods, load_method
from alignzoo.objective.objective import Objective
from alignzoo.testing.sample import leaves, sample
from alignzoo.testing.steps import Bench, data_for

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


def test_wpo_equals_trl(tmp_path: Path) -> None:
    """TRL's own trainer with `use_weighting`, on its own batch: value and gradients of the weights. Weights are far
    from each other, so a constant one would show."""
    pytest.importorskip("trl")
    step = dpo_step(tmp_path, use_weighting=True, beta=0.3)
    wrapper = load_method("robust", "wpo", cap=False)
    weights = wrapper.of_pairs(step.responses().pairs())
    assert float(weights.max() / weights.min()) > 1.1
    step.equals(Objective(load_method("loss", "dpo", beta=0.3), [wrapper]))


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


def test_wdpo_equals_autograd_through_a_model() -> None:
    """The mean of ℓ + ρ·(‖∂ℓ/∂e_w‖² + ‖∂ℓ/∂e_l‖²) of single sequences and its gradient in all weights, against the step
    in micro-batches."""
    card = next(card for card in list_methods("robust") if card.name == "wdpo")
    bench = Bench(data=data_for(card))
    dpo, wdpo = load_method("loss", "dpo", beta=0.5), load_method("robust", "wdpo", rho=0.3)
    goal = Objective(dpo, [wdpo, load_method("robust", "drdpo", beta_prime=0.7)], coupled=True)
    ctx = bench.context(goal, 0, size=2)
    taken = ctx.backward()
    found = bench.gradient()
    rows, values = bench.data.rows(0), []
    for row, i in zip(rows, range(len(rows)), strict=True):
        z, logps, embeddings = torch.zeros((), dtype=torch.float64), [], []
        for response in row["response_ids"]:
            logp, embedding = of_sequence(bench.policy, row["prompt_ids"], response)
            logps.append(logp)
            embeddings.append(embedding)
        reference = taken.pairs.ref_chosen_logps[i] - taken.pairs.ref_rejected_logps[i]  # type: ignore[index]
        z = 0.5 * (logps[0] - logps[1] - reference)
        loss = -torch.nn.functional.logsigmoid(z)
        slopes = torch.autograd.grad(loss, embeddings, create_graph=True)
        values.append(loss + 0.3 * sum(slope.square().sum() for slope in slopes))
    expected = -0.7 * (torch.logsumexp(-torch.stack(values) / 0.7, 0) - torch.log(torch.tensor(8.0)).double())
    close(taken.value, expected.detach(), rtol=1e-6, atol=1e-8)
    gradient = torch.autograd.grad(expected, list(bench.policy.parameters()), allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(bench.policy.parameters(), gradient, strict=True)]
    theirs = torch.cat([g.flatten() for g in flat])
    assert float((found - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def of_sequence(model: Any, prompt: list[int], response: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A response's log-prob from a forward pass over its embeddings, and these."""
    ids = torch.tensor([*prompt, *response])
    embeddings = model.get_input_embeddings()(ids)
    with sdpa_kernel([SDPBackend.MATH]):
        logits = model(inputs_embeds=embeddings[None], pack=None).logits[0]
    logps = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(-1, torch.tensor(response)[:, None]).sum(), embeddings


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
