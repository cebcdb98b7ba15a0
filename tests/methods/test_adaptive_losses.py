"""Losses adapted to the pair or the step: TRL, the authors, limits, and what they draw or solve."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import golden_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from trl_dpo import step_of_trl

from alignzoo import PairBatch, load_method
from alignzoo.plan.recipe import Layer
from alignzoo.plan.resolve import resolve
from alignzoo.testing.sample import sample

seeds = st.integers(0, 10_000)


def shifted(pairs: PairBatch, nats: float) -> PairBatch:
    return replace(pairs, chosen_logps=pairs.chosen_logps + nats)


def exact(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("name", "loss_type"), [("aot", "aot"), ("aot-unpaired", "aot_unpaired")])
def test_aot_equals_trl(name: str, loss_type: str, smoothing: float, tmp_path: Path) -> None:
    """TRL's own trainer computes its loss on its own batch; we compute ours on the same tokens and weights."""
    pytest.importorskip("trl")
    theirs, responses = step_of_trl(tmp_path, loss_type=[loss_type], beta=0.3, label_smoothing=smoothing)
    ours = load_method("loss", name, beta=0.3, label_smoothing=smoothing)(responses.pairs()).mean()
    assert float(ours) == pytest.approx(theirs, rel=2e-6)


@given(seed=seeds)
def test_aot_is_dpo_of_equal_references(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    pairs = replace(pairs, ref_rejected_logps=pairs.ref_chosen_logps)
    aot, dpo = load_method("loss", "aot", beta=0.1), load_method("loss", "dpo", beta=0.1)
    torch.testing.assert_close(aot(pairs), dpo(pairs), atol=1e-12, rtol=0)


@given(seed=seeds)
def test_aot_unpaired_does_not_read_the_pairing(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    assert pairs.ref_rejected_logps is not None
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    other = replace(
        pairs, rejected_logps=pairs.rejected_logps[order], ref_rejected_logps=pairs.ref_rejected_logps[order]
    )
    loss = load_method("loss", "aot-unpaired", beta=0.1)
    torch.testing.assert_close(loss(other), loss(pairs), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["aot", "aot-unpaired"])
def test_aot_passes_the_gradient_through_the_sort(name: str) -> None:
    """Each response moves the one value at its own rank, and is told apart from the others by it."""
    pairs = sample({"reference"}, seed=3)
    chosen = pairs.chosen_logps.clone().requires_grad_(True)
    rejected = pairs.rejected_logps.clone().requires_grad_(True)
    loss = load_method("loss", name, beta=0.1)
    values = loss(replace(pairs, chosen_logps=chosen, rejected_logps=rejected))
    up, down = torch.autograd.grad(values.sum(), (chosen, rejected))
    assert (up < 0).all()
    assert (down > 0).all()
    torch.testing.assert_close(up.sum(), -down.sum(), atol=1e-12, rtol=0)


@given(seed=seeds)
def test_alpha_dpo_without_alpha_is_simpo(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    loss = load_method("loss", "alpha-dpo", beta=2.0, gamma_beta_ratio=0.3, alpha=0.0)
    loss.observe(pairs)
    simpo = load_method("loss", "simpo", beta=2.0, gamma_beta_ratio=0.3)
    torch.testing.assert_close(loss(pairs), simpo(pairs), atol=1e-12, rtol=0)


def test_alpha_dpo_averages_the_last_steps() -> None:
    """Authors' averages from 0, each divided by the sum of its weights, 1 − 0.9^t."""
    loss, steps = load_method("loss", "alpha-dpo"), [sample({"reference"}, seed=seed) for seed in range(5)]
    mean = std = exact(0.0)[0]
    for count, pairs in enumerate(steps, start=1):
        loss.observe(pairs)
        chosen, rejected = pairs.log_ratios_per_token()
        margins = chosen - rejected
        mean, std = 0.9 * mean + 0.1 * margins.mean(), 0.9 * std + 0.1 * margins.std()
        z = (margins - mean / (1 - 0.9**count)) / (std / (1 - 0.9**count))
        torch.testing.assert_close(loss.target(pairs), 0.4 + 0.2 * z, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["alpha-dpo", "beta-dpo"])
def test_running_statistics_survive_degenerate_steps(name: str) -> None:
    """A first step at the reference, where all margins are 0, and steps of one pair."""
    pairs = sample({"reference"})
    same = replace(pairs, ref_chosen_logps=pairs.chosen_logps, ref_rejected_logps=pairs.rejected_logps)
    for first in (same, pairs.rows(slice(0, 1))):
        loss = load_method("loss", name)
        for batch in (first, first, pairs, pairs.rows(slice(3, 4))):
            loss.observe(batch)
            assert torch.isfinite(loss(batch)).all()
            assert all(torch.isfinite(torch.as_tensor(value)) for value in loss.metrics(batch).values())


@pytest.mark.parametrize("nats", [5000.0, -5000.0])
@pytest.mark.parametrize("name", ["alpha-dpo", "beta-dpo", "gamma-po"])
def test_finite_in_a_step_of_extreme_margins(name: str, nats: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        pairs = sample({"reference"})
        pairs = replace(pairs, chosen_logps=pairs.chosen_logps + nats * (torch.arange(8) % 2)).to(dtype=dtype)
        loss, leaf = load_method("loss", name), pairs.chosen_logps.requires_grad_(True)
        loss.observe(pairs.detach())
        values = loss(pairs)
        assert torch.isfinite(values).all()
        assert torch.isfinite(torch.autograd.grad(values.sum(), leaf)[0]).all()


def test_beta_dpo_equals_the_authors() -> None:
    """Their function without dropping, given the average of the means of two steps: β' = 0.0715789."""
    loss, pairs = load_method("loss", "beta-dpo", dropped=0.0), golden_pairs()
    for step in (shifted(pairs, 1.0), pairs):
        loss.observe(step)
    theirs = exact(0.624127821, 0.806268550, 0.657998013, 0.515554651)
    torch.testing.assert_close(loss(pairs), theirs, atol=1e-8, rtol=0)


@given(seed=seeds, beta=st.floats(0.01, 1))
def test_beta_dpo_without_its_parts_is_dpo(seed: int, beta: float) -> None:
    pairs = sample({"reference"}, seed=seed)
    loss = load_method("loss", "beta-dpo", beta=beta, alpha=0.0, dropped=0.0)
    loss.observe(pairs)
    torch.testing.assert_close(loss(pairs), load_method("loss", "dpo", beta=beta)(pairs), atol=1e-12, rtol=0)


def test_beta_dpo_draws_like_multinomial() -> None:
    """How often each of four pairs is kept, two at a time, against torch.multinomial with the same weights."""
    pairs, draws = golden_pairs(), 4000
    margins = exact(2, -3, 1, 5.5)
    weights = (-0.5 * ((margins - margins.mean()) / margins.std()) ** 2).exp()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(weights.expand(100_000, 4), 2, replacement=False, generator=generator)
    expected = torch.bincount(drawn.flatten(), minlength=4) / len(drawn)
    found = torch.zeros(4)
    for step in range(draws):
        loss = load_method("loss", "beta-dpo", dropped=0.5)
        # As after so many steps with these means, and no standard deviation: those of the weights above.
        state = {"steps": step, "spreads": 0, "mean": (1 - 0.9**step) * margins.mean(), "std": 0.0, "beta": 0.1}
        loss.load_state_dict(state)
        loss.observe(pairs)
        found += loss.kept(pairs)
    torch.testing.assert_close(found / draws, expected, atol=0.03, rtol=0)


@given(seed=seeds, dropped=st.floats(0, 0.9))
def test_beta_dpo_keeps_the_stated_share_and_its_mean(seed: int, dropped: float) -> None:
    pairs = sample({"reference"}, seed=seed)
    loss = load_method("loss", "beta-dpo", dropped=dropped)
    loss.observe(pairs)
    kept, values = loss.kept(pairs), loss(pairs)
    assert int(kept.sum()) == max(1, int((1 - dropped) * 8))
    used = load_method("loss", "dpo", beta=float(loss.metrics(pairs)["beta"]))(pairs)
    torch.testing.assert_close(values.mean(), used[kept].mean(), atol=1e-12, rtol=0)


@given(seed=seeds)
def test_beta_dpo_draws_the_same_in_every_pass_and_order(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    one, other = (load_method("loss", "beta-dpo", dropped=0.4) for _ in range(2))
    one.observe(pairs)
    other.observe(pairs.rows(order))
    assert torch.equal(one.kept(pairs)[order], other.kept(pairs.rows(order)))
    perturbed = replace(pairs, chosen_logps=pairs.chosen_logps + torch.linspace(-3, 3, 8, dtype=torch.float64))
    assert torch.equal(one.kept(perturbed), one.kept(pairs))  # as in the second pass of a geometry controller


def test_beta_dpo_drops_other_pairs_in_the_next_step() -> None:
    loss, pairs = load_method("loss", "beta-dpo", dropped=0.5), sample({"reference"})
    seen = set()
    for _ in range(5):
        loss.observe(pairs)
        seen.add(tuple(loss.kept(pairs).tolist()))
    assert len(seen) > 1
    resumed = load_method("loss", "beta-dpo", dropped=0.5)
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    for one in (loss, resumed):
        one.observe(pairs)
    assert torch.equal(loss(pairs), resumed(pairs))


margins = st.lists(st.floats(-30, 30), min_size=1, max_size=9).map(lambda values: exact(*values))


@settings(deadline=None)
@given(margins=margins, gamma=st.floats(0.04, 10), tau=st.floats(0.05, 20))
def test_gamma_po_solves_its_problem(margins: torch.Tensor, gamma: float, tau: float) -> None:
    """At the minimum over the simplex the gradient is the same in all coordinates; ΣΔ = 0; γ is ordered as r is."""
    gammas = load_method("loss", "gamma-po", beta=gamma, gamma_beta_ratio=1.0, tau=tau).targets(margins)
    share = (gammas / gamma).requires_grad_(True)
    value = torch.nn.functional.softplus(gamma * share - margins).mean() + tau * (share * share.log()).mean()
    (gradient,) = torch.autograd.grad(value, share)
    assert float(gradient.max() - gradient.min()) * len(margins) < 1e-9 * (gamma + tau)
    torch.testing.assert_close(gammas.mean(), exact(gamma)[0], atol=1e-9, rtol=1e-9)
    assert (gammas[margins.argsort()].diff() >= -1e-9).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_gamma_po_limits(seed: int) -> None:
    pairs = sample({"reference"}, seed=seed)
    options = {"beta": 2.0, "gamma_beta_ratio": 0.3}
    loss = load_method("loss", "gamma-po", tau=1e9, **options)
    torch.testing.assert_close(loss(pairs), load_method("loss", "simpo", **options)(pairs), atol=1e-7, rtol=0)
    dpo = load_method("loss", "gamma-po", form="dpo", tau=1e9, **options)
    torch.testing.assert_close(dpo(pairs), load_method("loss", "dpo", beta=2.0)(pairs), atol=1e-7, rtol=0)


def test_gamma_po_golden_targets() -> None:
    pairs = golden_pairs()
    simpo = load_method("loss", "gamma-po", beta=10.0, gamma_beta_ratio=0.4, tau=10.0)
    targets = simpo.targets(10 * (pairs.per_token()[0] - pairs.per_token()[1]))
    torch.testing.assert_close(targets, exact(3.996819, 4.004149, 3.977729, 4.021303), atol=1e-6, rtol=0)
    dpo = load_method("loss", "gamma-po", form="dpo", beta=0.1, gamma_beta_ratio=10.0, tau=0.5)
    shifts = dpo.targets(0.1 * exact(2, -3, 1, 5.5)) - 1
    torch.testing.assert_close(shifts, exact(0.013094, -0.122347, -0.016437, 0.125690), atol=1e-6, rtol=0)


@given(seed=seeds)
def test_mallows_dpo_is_dpo_at_unit_dispersion(seed: int) -> None:
    pairs, entropy = sample({"reference"}, seed=seed), exact(-2.0)[0].exp()
    pairs = replace(
        pairs,
        ref_chosen_entropies=entropy * pairs.chosen_lengths,
        ref_rejected_entropies=entropy * pairs.rejected_lengths,
    )
    mallows = load_method("loss", "mallows-dpo", beta=0.3, dispersion_scale=0.5)
    torch.testing.assert_close(mallows(pairs), load_method("loss", "dpo", beta=0.3)(pairs), atol=1e-12, rtol=0)


def test_mallows_dpo_is_finite_where_the_reference_is_certain() -> None:
    zeros = {"ref_chosen_entropies": (0.0,) * 4, "ref_rejected_entropies": (0.0,) * 4}
    assert torch.isfinite(load_method("loss", "mallows-dpo")(golden_pairs(**zeros))).all()


def test_beta_dpo_is_refused_where_an_anchor_replaces_the_reference() -> None:
    problems = resolve([Layer("test", {"loss": "beta-dpo", "geometry": "gapo"})])
    assert isinstance(problems, list)
    assert "recognises pairs by the reference" in problems[0].message


def test_beta_dpo_drops_the_same_pairs_under_the_opposite_label() -> None:
    pairs = sample(count=8, seed=3)
    loss = load_method("loss", "beta-dpo", dropped=0.5)
    loss.observe(pairs)
    kept = loss.kept(pairs)
    assert 0 < int(kept.sum()) < 8
    assert torch.equal(loss.kept(pairs.swap()), kept)


def test_statistics_of_steps_on_a_device_serve_a_batch_on_the_host() -> None:
    """Held-out rows are evaluated there. The device is one that PyTorch only imagines, so no GPU is needed."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def on_device(value: torch.Tensor) -> torch.Tensor:
            return FakeTensor(mode, value.to("meta"), torch.device("cuda"))

        pairs = sample({"reference"}).map(mode.from_tensor)
        one, dropped = on_device(torch.ones((), dtype=torch.float64)), on_device(torch.ones(1, 2, dtype=torch.float64))
        moments = {"steps": 1, "spreads": 1, "mean": one, "std": one}
        for name, more in (("alpha-dpo", {}), ("beta-dpo", {"beta": one, "dropped": dropped})):
            loss = load_method("loss", name)
            loss.load_state_dict({**moments, **more})
            assert loss(pairs).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "options"),
    [("alpha-dpo", {}), ("gamma-po", {"tau": 0.5}), ("gamma-po", {"form": "dpo", "beta": 1.0, "tau": 0.5})],
)
def test_target_margins_pass_no_gradient(name: str, options: dict[str, Any]) -> None:
    """dℓ/dr = −σ(target − r) = e^{−ℓ} − 1, as for a constant target."""
    pairs, loss = sample({"reference"}, seed=5), load_method("loss", name, **options)
    loss.observe(pairs)
    leaf = pairs.chosen_logps.clone().requires_grad_(True)
    batch = replace(pairs, chosen_logps=leaf)
    values = loss(batch)
    (found,) = torch.autograd.grad(values.sum(), leaf)
    (of_reward,) = torch.autograd.grad(loss.rewards(batch)[0].sum(), leaf)
    torch.testing.assert_close(found, of_reward * ((-values.detach()).exp() - 1), atol=1e-12, rtol=1e-9)


def test_beta_dpo_resumes_with_its_beta_and_never_reverses() -> None:
    """A run is evaluated before its next step; and far below average margins β' is 0.001, not negative."""
    loss, resumed, pairs = load_method("loss", "beta-dpo"), load_method("loss", "beta-dpo"), golden_pairs()
    for step in (shifted(pairs, 1.0), pairs):
        loss.observe(step)
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(resumed(pairs), loss(pairs))
    loss.observe(shifted(pairs, -500.0))
    assert float(loss.metrics(pairs)["beta"]) == 1e-3
