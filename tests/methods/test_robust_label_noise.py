"""Wrappers that replace labels: cdpo, rdpo, re-po, dpo-pro and wdpo-winsor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import golden_pairs
from hypothesis import given
from hypothesis import strategies as st
from trl_dpo import dpo_step

from alignzoo import PairBatch, load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Wrapping
from alignzoo.testing.sample import leaves, sample, take

BETA = 0.1
close = torch.testing.assert_close
rates = st.floats(0, 0.45)
margins = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


def dpo() -> Any:
    return load_method("loss", "dpo", beta=BETA)


def values(name: str, pairs: PairBatch, **options: Any) -> torch.Tensor:
    """DPO's values under the wrapper."""
    return load_method("robust", name, **options).per_pair(dpo(), pairs)


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def with_margins(z: list[float], **fields: Any) -> PairBatch:
    """Pairs of which DPO's margin βh is z."""
    count = len(z)
    zero, ones = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    return PairBatch(
        chosen_logps=column(*z) / BETA,
        rejected_logps=zero,
        chosen_lengths=ones,
        rejected_lengths=ones,
        ref_chosen_logps=zero,
        ref_rejected_logps=zero,
        **fields,
    )


def slopes(name: str, pairs: PairBatch, **options: Any) -> torch.Tensor:
    """The gradient of the sum of the values in the chosen responses' log-probs."""
    inputs, wanted = leaves(pairs)
    return torch.autograd.grad(values(name, inputs, **options).sum(), wanted["chosen_logps"])[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cdpo", (0.618139, 0.824355, 0.654397, 0.510492)),
        ("rdpo", (0.573139, 0.891855, 0.631897, 0.386742)),
    ],
)
def test_label_noise_wrappers_equal_golden_values(name: str, expected: tuple[float, ...]) -> None:
    close(values(name, golden_pairs(), epsilon=0.1), column(*expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["cdpo", "rdpo"])
def test_without_noise_they_are_the_loss(name: str) -> None:
    close(values(name, golden_pairs(), epsilon=0.0), dpo()(golden_pairs()), atol=0, rtol=0)


@given(epsilon=st.floats(0.01, 0.45))
def test_cdpo_is_least_at_the_log_odds_of_the_labels(epsilon: float) -> None:
    best = float(torch.logit(torch.tensor(1 - epsilon, dtype=torch.float64)))
    assert abs(float(slopes("cdpo", with_margins([best]), epsilon=epsilon))) < 1e-9
    at, near = values("cdpo", with_margins([best]), epsilon=epsilon), with_margins([best + 0.3, best - 0.3])
    assert bool((values("cdpo", near, epsilon=epsilon) > at).all())


@given(z=margins, epsilon=rates)
def test_rdpo_is_unbiased(z: list[float], epsilon: float) -> None:
    """The mean over labels, a share ε of which is wrong, is the loss under the right ones; so cdpo undoes it."""
    pairs = with_margins(z)
    right, wrong = values("rdpo", pairs, epsilon=epsilon), values("rdpo", pairs.swap(), epsilon=epsilon)
    close((1 - epsilon) * right + epsilon * wrong, dpo()(pairs), atol=1e-8, rtol=1e-8)


def test_rdpo_equals_trl(tmp_path: Path) -> None:
    """TRL's own trainer with `robust`, on its own batch: value and gradients of the weights."""
    pytest.importorskip("trl")
    step = dpo_step(tmp_path, loss_type=["robust"], beta=0.3, label_smoothing=0.2)
    step.equals(Objective(load_method("loss", "dpo", beta=0.3), [load_method("robust", "rdpo", epsilon=0.2)]))


# ---------------------------------------------------------------- re-po


def re_po(**options: Any) -> tuple[Any, Objective]:
    wrapper = load_method("robust", "re-po", **options)
    return wrapper, Objective(dpo(), [Wrapping(wrapper, "re-po")])


def test_re_po_equals_golden_values() -> None:
    """The marginal values, and η after the step."""
    wrapper, objective = re_po(eta=0.9, alpha=0.1)
    responses = ResponseBatch.of_pairs(golden_pairs())
    close(objective.values(responses), column(0.6164, 0.8200, 0.6540, 0.4987), atol=5e-5, rtol=0)
    objective.observe(responses, coupled=True)
    assert wrapper.state_dict()["reliability"].numel() == 0  # it moves after the step
    objective.observe(responses, coupled=False)
    close(wrapper.state_dict()["reliability"], column(0.900865), atol=1e-6, rtol=0)


@given(z=margins, eta=st.floats(0.5, 0.999))
def test_re_po_has_the_papers_gradient(z: list[float], eta: float) -> None:
    """−w·log σ(t) − (1 − w)·log σ(−t) with the posterior w constant."""
    t = column(*z).requires_grad_(True)
    w = torch.sigmoid(t + torch.logit(torch.tensor(eta, dtype=torch.float64))).detach()
    theirs = torch.autograd.grad((-w * F.logsigmoid(t) - (1 - w) * F.logsigmoid(-t)).sum(), t)[0]
    close(slopes("re-po", with_margins(z), eta=eta), BETA * theirs, atol=1e-12, rtol=1e-9)


@given(z=margins)
def test_re_po_of_certain_labels_is_dpo(z: list[float]) -> None:
    pairs = with_margins(z)
    close(values("re-po", pairs, eta=1.0), dpo()(pairs), atol=1e-9, rtol=1e-9)
    assert float(slopes("re-po", pairs, eta=0.5).abs().max()) < 1e-12  # coin flips teach nothing


def test_re_po_around_ipo_is_re_po_around_a_steeper_dpo() -> None:
    ipo = load_method("loss", "ipo", tau=0.5, logps="sum")
    found = load_method("robust", "re-po").per_pair(ipo, golden_pairs())
    expected = load_method("robust", "re-po").per_pair(load_method("loss", "dpo", beta=4.0), golden_pairs())
    close(found, expected, atol=1e-9, rtol=1e-9)


def test_each_annotator_has_a_reliability_of_its_own() -> None:
    """Annotators without a pair keep theirs, new ones start at η₀, and a wrong one's falls."""
    wrapper, objective = re_po(annotators="groups", alpha=0.5)
    groups = torch.tensor([0, 0, 2, 2])
    pairs = with_margins([2.0, 3.0, -4.0, -3.0], groups=groups)
    objective.observe(ResponseBatch.of_pairs(pairs), coupled=False)
    eta = wrapper.state_dict()["reliability"]
    posterior = torch.sigmoid(column(2.0, 3.0, -4.0, -3.0) + torch.logit(column(0.9)))
    close(eta, column(0.45 + 0.5 * posterior[:2].mean(), 0.9, 0.45 + 0.5 * posterior[2:].mean()))
    later = with_margins([0.5], groups=torch.tensor([1]))
    objective.observe(ResponseBatch.of_pairs(later), coupled=False)
    close(wrapper.state_dict()["reliability"][[0, 2]], eta[[0, 2]], atol=0, rtol=0)


def test_a_reliability_never_becomes_certain() -> None:
    """At 0 or 1 no later pair could move it any more."""
    wrapper, objective = re_po(alpha=1.0)
    for z, expected in ((500.0, 0.999), (-500.0, 0.001), (500.0, 0.999)):
        objective.observe(ResponseBatch.of_pairs(with_margins([z])), coupled=False)
        close(wrapper.state_dict()["reliability"], column(expected), atol=1e-12, rtol=0)


def test_re_po_inside_a_wrapper_learns_from_the_given_labels() -> None:
    """What is around it, such as a penalty or an aggregation over the step, does not change the posterior."""
    alone, objective = re_po()
    inside = load_method("robust", "re-po")
    stacked = Objective(dpo(), [Wrapping(inside, "re-po"), Wrapping(load_method("robust", "drdpo"), "drdpo", True)])
    responses = ResponseBatch.of_pairs(golden_pairs())
    for one in (objective, stacked):
        one.observe(responses, coupled=False)
    close(inside.state_dict(), alone.state_dict(), atol=0, rtol=0)


# ---------------------------------------------------------------- dpo-pro


def test_dpo_pro_equals_golden_values() -> None:
    q = column(0.9, 0.6, 0.75, 0.5)
    pairs = golden_pairs(chosen_scores=tuple(torch.logit(q).tolist()), rejected_scores=(0.0, 0.0, 0.0, 0.0))
    expected = column(0.637113, 0.780831, 0.683090, 0.817455)
    close(values("dpo-pro", pairs, rho=0.1, k=1.0), expected, atol=1e-6, rtol=0)


@given(z=margins, gap=st.floats(-0.5, 0.5))
def test_dpo_pro_without_a_ball_is_soft_label(z: list[float], gap: float) -> None:
    count = len(z)
    scores = {"chosen_scores": torch.full((count,), gap), "rejected_scores": torch.zeros(count)}
    pairs = with_margins(z, **{name: value.double() for name, value in scores.items()})
    close(values("dpo-pro", pairs, rho=0.0), values("soft-label", pairs), atol=1e-12, rtol=1e-12)


@given(z=st.floats(-5, 5), epsilon=st.floats(0.01, 0.49), rho=st.floats(0, 1))
def test_dpo_pro_is_the_worst_label(z: float, epsilon: float, rho: float) -> None:
    """The largest value over label confidences p in [0, 1] with (p − q)² ≤ ρ·q(1 − q); more at a larger ρ."""
    pairs = with_margins([z])
    found = float(values("dpo-pro", pairs, labels="smoothed", epsilon=epsilon, rho=rho))
    q, width = 1 - epsilon, (rho * epsilon * (1 - epsilon)) ** 0.5
    grid = torch.linspace(max(0.0, q - width), min(1.0, q + width), 101, dtype=torch.float64)
    given_labels, opposite = float(dpo()(pairs)), float(dpo()(pairs.swap()))
    assert found == pytest.approx(float((grid * given_labels + (1 - grid) * opposite).max()), abs=1e-9)
    assert found <= float(values("dpo-pro", pairs, labels="smoothed", epsilon=epsilon, rho=rho + 0.1)) + 1e-12


def test_dpo_pro_shows_its_soft_labels() -> None:
    scores = column(0.3, -0.2), column(0.0, 0.0)
    close(load_method("robust", "dpo-pro").soft_labels(*scores), torch.sigmoid(10 * column(0.3, -0.2)))
    assert load_method("robust", "dpo-pro", labels="smoothed").soft_labels(*scores) is None


# ---------------------------------------------------------------- wdpo-winsor


@pytest.mark.parametrize(
    ("scale", "progress", "expected"),
    [
        (1, 0.5, (0.619139, 0.681151, 0.654897, 0.513242)),
        (10, 0.5, (0.126928, 0.528748, 0.313262, 0.004078)),
        (1, 0.2, (0.598139, 0.740978, 0.644397, 0.455492)),
    ],
)
def test_winsor_equals_golden_values(scale: float, progress: float, expected: tuple[float, ...]) -> None:
    pairs = with_margins([scale * z for z in (0.2, -0.3, 0.1, 0.55)], progress=progress)
    close(values("wdpo-winsor", pairs), column(*expected), atol=2e-6, rtol=0)


def test_winsor_flips_and_budget_equal_golden_values() -> None:
    wrapper = load_method("robust", "wdpo-winsor")
    z = column(0.2, -0.3, 0.1, 0.55)
    close(wrapper.flips(z), column(0.105, 0.285, 0.105, 0.105), atol=1e-6, rtol=0)
    close(wrapper.flips(10 * z), column(0, 0.6, 0, 0), atol=1e-6, rtol=0)
    close(wrapper.budget(z), column(0.213782)[0], atol=1e-6, rtol=0)
    close(load_method("robust", "wdpo-winsor", strict=True).flips(z), column(0, 0.6 * 0.475, 0, 0), atol=1e-6, rtol=0)


@given(z=margins, progress=st.floats(0, 1))
def test_winsor_without_a_budget_is_the_mean(z: list[float], progress: float) -> None:
    pairs = with_margins(z, progress=progress)
    found = values("wdpo-winsor", pairs, rho_f=0.0, rho_max=0.0, early=0.0)
    close(found, dpo()(pairs), atol=1e-12, rtol=1e-12)


@given(z=margins, rho=st.floats(0, 1), strict=st.booleans())
def test_winsor_flips_no_more_than_its_budget(z: list[float], rho: float, strict: bool) -> None:
    flips = load_method("robust", "wdpo-winsor", rho_f=rho, strict=strict).flips(column(*z))
    assert float(flips.mean()) <= rho + 1e-9
    assert bool(((flips >= 0) & (flips <= 1)).all())
    if strict:
        assert float(flips[column(*z) >= 0].sum()) == 0


@pytest.mark.parametrize("name", ["cdpo", "rdpo", "re-po", "dpo-pro"])
def test_they_work_on_each_pair_alone(name: str) -> None:
    pairs, some = sample(), torch.tensor([2, 5])
    close(values(name, take(pairs, some)), values(name, pairs)[some], atol=1e-12, rtol=1e-12)


def test_flips_and_limit_of_winsor_are_constants() -> None:
    """dℓ''/dz = (1 − r)·[(1 − π)·(−σ(−z)) + π·σ(z)] with π, r as they are, after the start."""
    z = column(2, -3, 1, 5.5)
    pairs = with_margins(z.tolist(), progress=0.5)
    wrapper = load_method("robust", "wdpo-winsor")
    flips = wrapper.flips(z)
    inside = (1 - flips) * -F.logsigmoid(z) + flips * -F.logsigmoid(-z)
    share, _ = wrapper.winsor(inside, wrapper.budget(z))
    assert 0 < float(share.max()) < 1
    expected = (1 - share) * (flips * torch.sigmoid(z) - (1 - flips) * torch.sigmoid(-z))
    close(slopes("wdpo-winsor", pairs), BETA * expected, atol=1e-12, rtol=1e-9)
