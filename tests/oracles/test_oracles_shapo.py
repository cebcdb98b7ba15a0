"""ShaPO against its authors' code: the loss, the neurons, and whole steps (README.md here says how it was recorded)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from llama import MICRO_BATCHES, PAIRS, head, model, rows, seen_from_outside
from recorded import oracle

from alignzoo import PairBatch, load_method
from alignzoo.objective.objective import Objective
from alignzoo.probe.probe import Probe
from alignzoo.report import Reporter
from alignzoo.step.setup import SetupContext
from alignzoo.testing.steps import context
from alignzoo.testing.tiny import cut

close = torch.testing.assert_close
RECORDED = oracle("shapo-token")


@pytest.mark.parametrize("case", RECORDED["losses"], ids=lambda c: f"k={c['k']}, beta'={c['drdpo']}")
def test_losses_equal_shapos(case: dict[str, Any]) -> None:
    """Hard and soft labels, the mean and DrDPO; their log(p + 10⁻¹²) is ours to 10⁻⁹ where p is not tiny."""
    given = PairBatch(**RECORDED["pairs"])
    leaves = [given.chosen_logps.clone().requires_grad_(), given.rejected_logps.clone().requires_grad_()]
    scores = {f"{side}_scores": -costs for side, costs in case["costs"].items()}
    pairs = replace(given, chosen_logps=leaves[0], rejected_logps=leaves[1], **scores)
    loss = load_method("loss", "dpo", beta=0.1)
    if case["k"] is None:
        losses = loss(pairs)
    else:
        soft = load_method("robust", "soft-label", k=case["k"])
        close(soft.of_pairs(pairs), case["p"], rtol=1e-12, atol=0)
        losses = soft.per_pair(loss, pairs)
    close(losses, case["losses"], rtol=1e-9, atol=0)
    value = losses.mean()
    if case["drdpo"] is not None:
        value = load_method("robust", "drdpo", beta_prime=case["drdpo"]).objective(losses)
    assert value.item() == pytest.approx(case["value"], rel=1e-9)
    gradients = torch.autograd.grad(value, leaves)
    close(gradients[0], case["gradient_chosen"], rtol=1e-9, atol=0)
    close(gradients[1], case["gradient_rejected"], rtol=1e-9, atol=0)


def set_up(policy: Any, **options: Any) -> Any:
    shapo = load_method("geometry", "shapo-token", preset="official", **options)
    probe = Probe(head(), torch.zeros(2), {})
    shapo.setup(SetupContext(policy, seed=0, report=Reporter(), probe=lambda folder: probe))
    return shapo


@pytest.mark.parametrize("case", RECORDED["neurons"], ids=lambda c: f"{c['family']} {c['share']}")
def test_neurons_equal_shapos(case: dict[str, Any]) -> None:
    selected = set_up(model(case["family"]), share=case["share"]).selected
    for index, mask in zip(selected, case["masks"].values(), strict=True):
        assert index.tolist() == mask.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("name", "close_to"),
    [("official", 1e-9), ("official_under_drdpo", 1e-9), ("official_as_is_in_fp32", 5e-6)],
)
def test_steps_equal_shapos(name: str, close_to: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trajectory under SGD with their γ: two numbers of each tensor's gradient, in every step."""
    recorded = RECORDED[name]
    policy, reference = model(), model(seed=300)
    shapo = set_up(policy, **recorded["options"])
    wrappers = [] if recorded["drdpo"] is None else [load_method("robust", "drdpo", beta_prime=recorded["drdpo"])]
    goal = Objective(load_method("loss", "dpo", beta=recorded["beta"]), wrappers)
    draws = iter(((torch.cat([s["gammas"] for s in recorded["steps"] if len(s["gammas"])]) - 2e-6) / 2e-6).tolist())
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    for number, step in enumerate(recorded["steps"]):
        batches = cut(rows(number), PAIRS // MICRO_BATCHES)
        shapo.step(context(policy, batches, goal, reference=reference, step=number))
        gradients = [weight.grad.clone() for weight in policy.parameters()]
        products, lengths = seen_from_outside(gradients).T
        expected, expected_lengths = step["gradient"].T
        close(lengths, expected_lengths, rtol=close_to, atol=0)
        # A product of many numbers of both signs is as exact as the gradient is long.
        assert float(((products - expected) / expected_lengths).abs().max()) < close_to * 10
        policy.zero_grad()
        with torch.no_grad():
            for weight, gradient in zip(policy.parameters(), gradients, strict=True):
                weight -= recorded["lr"] * gradient
    assert next(draws, None) is None, "each recorded γ was used"


def test_the_recorded_perturbation_is_seen() -> None:
    """Without it the recorded steps differ by far more than they are compared to."""
    recorded = RECORDED["official"]
    policy, reference = model(), model(seed=300)
    goal = Objective(load_method("loss", "dpo", beta=recorded["beta"]))
    for number, step in enumerate(recorded["steps"][:5]):
        context(policy, cut(rows(number), 2), goal, reference=reference, step=number).backward()
        gradients = [weight.grad.clone() for weight in policy.parameters()]
        apart = (seen_from_outside(gradients) - step["gradient"])[:, 0].abs() / step["gradient"][:, 1]
        assert (float(apart.max()) < 1e-8) == (number < 4)
        policy.zero_grad()
        with torch.no_grad():
            for weight, gradient in zip(policy.parameters(), gradients, strict=True):
                weight -= recorded["lr"] * gradient
    assert float(apart.max()) > 3e-8
