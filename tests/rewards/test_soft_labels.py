"""Soft labels: the closed form under DPO, the limits, and no infinity anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from alignzoo import PairBatch, load_method
from alignzoo.contract.responses import ResponseBatch
from alignzoo.errors import MethodError
from alignzoo.interfaces import PreferenceLoss
from alignzoo.lazy import torch as lazy_torch
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Wrapping
from alignzoo.plugin import Options
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.sample import leaves, sample
from alignzoo.testing.steps import Bench

BETA = 0.1
Gradients = dict[str, torch.Tensor]


def pairs_with(h: list[float], scores: list[float]) -> PairBatch:
    """Pairs with these differences of log-ratios, in nats, and of scores."""
    count = len(h)
    zero, tokens = torch.zeros(count, dtype=torch.float64), torch.full((count,), 5.0, dtype=torch.float64)
    return PairBatch(
        chosen_logps=torch.tensor(h, dtype=torch.float64),
        rejected_logps=zero,
        chosen_lengths=tokens,
        rejected_lengths=tokens,
        ref_chosen_logps=zero,
        ref_rejected_logps=zero,
        chosen_scores=torch.tensor(scores, dtype=torch.float64),
        rejected_scores=zero,
    )


def under(method: Any, loss: Any, pairs: PairBatch) -> tuple[torch.Tensor, Gradients]:
    """Values and gradients of a loss under the method's ``per_pair``."""
    inputs, wanted = leaves(pairs)
    values = method.per_pair(loss, inputs)
    grads = torch.autograd.grad(values.sum(), list(wanted.values()), allow_unused=True)
    return values.detach(), {name: g for name, g in zip(wanted, grads, strict=True) if g is not None}


@given(
    h=st.lists(st.floats(-300, 300), min_size=1, max_size=5),
    gap=st.floats(-3, 3),
    k=st.floats(0.1, 20),
    temperature=st.floats(0.1, 10),
)
def test_soft_labels_under_dpo(h: list[float], gap: float, k: float, temperature: float) -> None:
    """−p·log σ(βh) − (1 − p)·log σ(−βh), whose slope in βh is σ(βh) − p."""
    method = load_method("robust", "soft-label", k=k, temperature=temperature)
    loss = load_method("loss", "dpo", beta=BETA)
    values, grads = under(method, loss, pairs_with(h, [gap] * len(h)))
    p = torch.sigmoid(torch.tensor(k * gap / temperature, dtype=torch.float64))
    margin = BETA * torch.tensor(h, dtype=torch.float64)
    torch.testing.assert_close(values, -p * F.logsigmoid(margin) - (1 - p) * F.logsigmoid(-margin))
    slope = BETA * (torch.sigmoid(margin) - p)
    torch.testing.assert_close(grads["chosen_logps"], slope, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(grads["rejected_logps"], -slope, atol=1e-9, rtol=1e-9)


class Exploding(PreferenceLoss):
    """exp(−2h): infinite, with an infinite slope, where h is far below 0."""

    def __call__(self, pairs: PairBatch) -> lazy_torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        return torch.exp(-2 * (chosen - rejected))


@pytest.mark.parametrize("loss", [("dpo", {}), ("ipo", {}), ("simpo", {}), None])
def test_sure_labels_are_hard_labels(loss: Any) -> None:
    """p at 1 is the loss, p at 0 that of the swapped pairs, to the bit; what the other side gives may be infinite."""
    goal = Exploding(Options()) if loss is None else load_method("loss", loss[0], **loss[1])
    method = load_method("robust", "soft-label")
    for sure, h in ((1000.0, [0.3, 500.0, 2.0]), (-1000.0, [-0.3, -500.0, -2.0])):
        pairs = pairs_with(h, [sure] * 3)
        values, grads = under(method, goal, pairs)
        inputs, wanted = leaves(pairs)
        hard = goal(inputs if sure > 0 else inputs.swap())
        expected = torch.autograd.grad(hard.sum(), list(wanted.values()), allow_unused=True)
        assert torch.equal(values, hard.detach())
        for name_of, gradient in zip(wanted, expected, strict=True):
            if gradient is not None:
                assert torch.equal(grads[name_of], gradient)
                assert torch.isfinite(grads[name_of]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_margins_are_finite(dtype: torch.dtype) -> None:
    """|βh| = 500 and beyond, with labels of every kind; the slope there is not 0 as it is with log(σ + 1e-12)."""
    method, loss = load_method("robust", "soft-label"), load_method("loss", "dpo", beta=BETA)
    h = [5000.0, -5000.0, 50000.0, -50000.0]
    for gap in (0.0, 0.05, -0.05, 5.0, -5.0, 1e6, -1e6):
        values, grads = under(method, loss, pairs_with(h, [gap] * 4).to(dtype=dtype))
        assert torch.isfinite(values).all()
        assert all(torch.isfinite(gradient).all() for gradient in grads.values())
    slope = under(method, loss, pairs_with([5000.0], [0.0]))[1]["chosen_logps"]
    assert slope.item() == pytest.approx(BETA * 0.5)


def test_token_fields_are_mixed_as_sums_are() -> None:
    class Tokens(PreferenceLoss):
        def __call__(self, pairs: PairBatch) -> torch.Tensor:
            assert pairs.chosen_token_logps is not None
            assert pairs.rejected_token_logps is not None
            return (pairs.rejected_token_logps.sum(-1) - pairs.chosen_token_logps.sum(-1)) ** 3

    pairs = sample(spread=0.1)
    p = torch.sigmoid(10 * (pairs.chosen_scores - pairs.rejected_scores))  # type: ignore[operator]
    goal = Tokens(Options())
    values, _ = under(load_method("robust", "soft-label"), goal, pairs)
    torch.testing.assert_close(values, p * goal(pairs) + (1 - p) * goal(pairs.swap()))


def test_soft_labels_log_what_they_train_on() -> None:
    """``metrics()``: the mean of p, and the share of the pairs that the reward contradicts."""
    objective = Objective(load_method("loss", "dpo"), [Wrapping(load_method("robust", "soft-label"), "soft-label")])
    given = pairs_with([0.3, -0.2, 0.1, 0.0], [1.0, -1.0, -2.0, 0.5])
    p = torch.sigmoid(10 * torch.tensor([1.0, -1.0, -2.0, 0.5], dtype=torch.float64))
    found = objective.metrics(ResponseBatch.of_pairs(given))
    assert found["robust/soft-label/soft_label_mean"] == pytest.approx(float(p.mean()))
    assert found["robust/soft-label/soft_label_disagrees"] == 0.5


def reward_level(size: int) -> dict[str, Any]:
    """Two steps of ShaPO at reward level: ``shapo-token`` under ``soft-label``, on this process's ranks."""
    bench, taken = Bench(), []
    controller = load_method("geometry", "shapo-token", select="random", interval=1, rho=0.1)
    bench.setup(controller)
    goal = Objective(load_method("loss", "dpo"), [load_method("robust", "soft-label"), load_method("robust", "drdpo")])
    for step in range(2):
        ctx = bench.context(goal, step, size=size)
        taken.append((controller.step(ctx).value, bench.gradient()))
    return {"steps": taken, "gap": ctx.metrics["geometry/sharpness_gap"]}


def test_shapo_token_under_soft_labels_is_exact_however_a_step_is_cut() -> None:
    whole = reward_level(8)
    assert whole["gap"] != 0
    for found in (reward_level(2), *on_two_ranks(reward_level, 2, modules=[__name__])):
        for (value, gradient), (expected_value, expected) in zip(found["steps"], whole["steps"], strict=True):
            torch.testing.assert_close(value, expected_value, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-11)


def test_without_scores_it_says_what_is_missing() -> None:
    responses = replace(ResponseBatch.of_pairs(sample()), scores=None)
    with pytest.raises(MethodError, match=r"SoftLabel failed on 8 pairs.*needs=.'reward'"):
        Objective(load_method("loss", "dpo"), [load_method("robust", "soft-label")]).values(responses)
