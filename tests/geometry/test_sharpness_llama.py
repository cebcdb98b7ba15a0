"""Sharpness-aware controllers on a tiny float64 llama: limits to the bit, and steps derived again on flat vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import objective
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from alignzoo import PairBatch, load_method
from alignzoo.interfaces import PreferenceLoss
from alignzoo.objective.objective import Objective
from alignzoo.plugin import Options
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import Bench, context, every_field
from alignzoo.testing.tiny import batch_of, cut, pair_rows, shifted, tiny_model

RHO = 0.2
ROWS = pair_rows(8, seed=9)


def step_of(bench: Bench, name: str, step: int, goal: Objective, **options: Any) -> torch.Tensor:
    """The gradient that a new controller leaves in that step."""
    load_method("geometry", name, **options).step(bench.context(goal, step, size=4))
    return bench.gradient()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gsam", {"alpha": 0}),
        ("wsam", {"gamma": 0.5}),
        ("friendly-sam", {"sigma": 0}),
        ("looksam", {"every": 1}),
        ("ssam", {"sparsity": 0}),
        ("ssam", {"sparsity": 0, "mode": "dynamic", "refresh": 1}),
        ("esam", {"keep": 1, "share": 1}),
    ],
)
def test_the_limit_is_sam_to_the_bit(name: str, options: dict[str, Any]) -> None:
    bench, goal = Bench(), objective("dpo", "drdpo")
    limit = load_method("geometry", name, rho=RHO, **options)
    for step in range(3):
        expected = step_of(bench, "sam", step, goal, rho=RHO)
        limit.step(bench.context(goal, step, size=4))
        assert torch.equal(bench.gradient(), expected)


class Landscape:
    """The objective's gradient anywhere in weight space, all weights as one vector."""

    def __init__(self, bench: Bench, goal: Objective) -> None:
        self.bench, self.goal = bench, goal
        self.here = parameters_to_vector(bench.policy.parameters()).detach().clone()

    def gradient(self, point: torch.Tensor, make: Any = None) -> torch.Tensor:
        vector_to_parameters(point, self.bench.policy.parameters())
        (make or self.context)().backward()
        vector_to_parameters(self.here, self.bench.policy.parameters())
        return self.bench.gradient()

    def context(self) -> StepContext:
        return self.bench.context(self.goal, 0, size=8)

    def at(self, point: torch.Tensor, read: Any) -> Any:
        """What ``read()`` gives with the weights at ``point``."""
        vector_to_parameters(point, self.bench.policy.parameters())
        with torch.no_grad():
            found = read()
        vector_to_parameters(self.here, self.bench.policy.parameters())
        return found


def test_asam_on_a_llama() -> None:
    goal = objective("dpo", "drdpo")
    land = Landscape(Bench(), goal)
    scale = torch.cat(
        [(p.abs() + 0.01 if p.dim() > 1 else torch.ones_like(p)).flatten() for p in land.bench.policy.parameters()]
    ).detach()
    scaled = scale * land.gradient(land.here)
    expected = land.gradient(land.here + RHO * scale * scaled / scaled.square().sum().sqrt())
    torch.testing.assert_close(step_of(Bench(), "asam", 0, goal, rho=RHO), expected, rtol=1e-7, atol=1e-10)


def test_gsam_on_a_llama() -> None:
    goal = objective("dpo", "drdpo")
    land = Landscape(Bench(), goal)
    g = land.gradient(land.here)
    worst = land.gradient(land.here + RHO * g / g.square().sum().sqrt())
    # The least-squares fit of g by g_p leaves what is across it.
    fitted = torch.linalg.lstsq(worst[:, None], g[:, None]).solution * worst[:, None]
    expected = worst - 0.4 * (g - fitted[:, 0])
    torch.testing.assert_close(step_of(Bench(), "gsam", 0, goal, rho=RHO), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("wrappers", [(), ("drdpo",)])
def test_esam_on_a_llama(wrappers: tuple[str, ...]) -> None:
    """The second gradient is that of a step in which the other pairs never were."""
    model, goal, share = tiny_model(), objective("dpo", *wrappers), 0.5
    reference = shifted(model)
    esam = load_method("geometry", "esam", rho=RHO, keep=1, share=share)
    esam.step(context(model, cut(ROWS, 2), goal, reference=reference))
    found = flat_grad(model)

    here = parameters_to_vector(model.parameters()).detach().clone()
    before = goal.values(context(model, cut(ROWS, 8), goal, reference=reference).backward().responses)
    g = flat_grad(model)
    vector_to_parameters(here + RHO * g / g.norm(), model.parameters())
    after = goal.values(context(model, cut(ROWS, 8), goal, reference=reference).evaluate().responses)
    kept = sorted((after - before).argsort(descending=True)[:3].tolist())  # one less than half of 8
    context(model, cut([ROWS[i] for i in kept], 3), goal, reference=reference).backward()
    torch.testing.assert_close(found, flat_grad(model), rtol=1e-7, atol=1e-10)


def flat_grad(model: Any) -> torch.Tensor:
    taken = torch.cat([p.grad.flatten().clone() for p in model.parameters()])
    model.zero_grad()
    return taken


def test_gapo_with_simpo_on_a_llama() -> None:
    """Autograd of −logσ(βΓ − γ), Γ = M(θ) − M(θ̃), written down without the library's loss."""
    model, beta, gamma = tiny_model(), 2.0, 0.5
    before = context(model, cut(ROWS, 4), objective("simpo")).backward()
    g = flat_grad(model)
    ctx = context(model, cut(ROWS, 4), objective("simpo"))
    loss = load_method("geometry", "gapo", rho=RHO).step(ctx)
    found = flat_grad(model)
    torch.testing.assert_close(loss.value, before.value)

    def margins() -> torch.Tensor:
        pairs = every_field(model, batch_of(ROWS)).pairs()
        return pairs.chosen_logps / pairs.chosen_lengths - pairs.rejected_logps / pairs.rejected_lengths

    here = parameters_to_vector(model.parameters()).detach().clone()
    vector_to_parameters(here + RHO * here**2 * g / (here * g).norm(), model.parameters())
    anchors = margins().detach()
    vector_to_parameters(here, model.parameters())
    value = -F.logsigmoid(beta * (margins() - anchors) - gamma).mean()
    value.backward()
    torch.testing.assert_close(found, flat_grad(model), rtol=1e-7, atol=1e-10)
    assert ctx.metrics["geometry/anchored_value"] == pytest.approx(value.item())
    assert value.item() < F.softplus(torch.tensor(gamma)).item(), "θ̃ is worse, so margins measured from there are up"


def test_gapo_at_radius_0_is_anchored_at_the_weights() -> None:
    """Γ = 0 and the loss is −logσ(−γ) for every pair; its gradient is −σ(γ)·β·∇M."""
    model, goal = tiny_model(), objective("simpo")
    ctx = context(model, cut(ROWS, 4), goal)
    load_method("geometry", "gapo", rho=0.0).step(ctx)
    found = flat_grad(model)
    assert ctx.metrics["geometry/anchored_value"] == pytest.approx(float(F.softplus(torch.tensor(0.5))))
    pairs = every_field(model, batch_of(ROWS)).pairs()
    margins = pairs.chosen_logps / pairs.chosen_lengths - pairs.rejected_logps / pairs.rejected_lengths
    margins.mean().backward()
    slope = -2.0 * torch.sigmoid(torch.tensor(0.5, dtype=torch.float64))
    expected = slope * flat_grad(model)
    # Not closer: with and without a graph attention takes different kernels, and llama's norms round to fp32.
    assert float((found - expected).norm() / expected.norm()) < 1e-7


def test_with_a_reference_the_anchor_takes_its_place() -> None:
    """dpo under gapo is dpo whose reference is θ̃."""
    model, goal = tiny_model(), objective("dpo", "drdpo")
    load_method("geometry", "gapo", rho=RHO).step(context(model, cut(ROWS, 4), goal))
    found = flat_grad(model)
    context(model, cut(ROWS, 4), goal).backward()
    g = flat_grad(model)
    here = parameters_to_vector(model.parameters()).detach().clone()
    anchor = tiny_model()
    vector_to_parameters(here + RHO * here**2 * g / (here * g).norm(), anchor.parameters())
    context(model, cut(ROWS, 4), goal, reference=anchor).backward()
    torch.testing.assert_close(found, flat_grad(model), rtol=1e-7, atol=1e-10)


KEPT = ([0, 3, 4], [7], [0, 1], [2, 3, 5, 6, 7], list(range(8)))


@pytest.mark.parametrize("wrappers", [(), ("drdpo",)])
@pytest.mark.parametrize("size", [8, 4, 3, 1])
@pytest.mark.parametrize("kept", KEPT)
def test_only_some_pairs_is_a_step_of_those_alone(kept: list[int], size: int, wrappers: tuple[str, ...]) -> None:
    model, goal = tiny_model(), objective("dpo", *wrappers)
    reference = shifted(model)
    mask = torch.zeros(8, dtype=torch.bool).index_fill_(0, torch.tensor(kept), True)
    alone = context(model, cut([ROWS[i] for i in kept], 8), goal, reference=reference).backward()
    expected = flat_grad(model)
    some = context(model, cut(ROWS, size), goal, reference=reference).only(mask)
    reports = [some.backward(), some.evaluate(), some.gradient(list(model.parameters()))[0]]
    torch.testing.assert_close(flat_grad(model), expected, rtol=1e-8, atol=1e-11)
    for report in reports:
        torch.testing.assert_close(report.value, alone.value, rtol=1e-9, atol=1e-12)
        assert torch.equal(report.pair_ids, alone.pair_ids)
        torch.testing.assert_close(report.pairs.chosen_logps, alone.pairs.chosen_logps)


def some_of_a_step(kept: list[int], wrappers: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient of a step of some pairs, on this process's ranks."""
    bench = Bench()
    mask = torch.zeros(8, dtype=torch.bool).index_fill_(0, torch.tensor(kept), True)
    report = bench.context(objective("dpo", *wrappers), 0, size=2).only(mask).backward()
    return report.value, bench.gradient()


@pytest.mark.parametrize("wrappers", [(), ("drdpo",)])
@pytest.mark.parametrize("kept", [[0, 1], [6], [1, 4, 5]])
def test_a_rank_may_end_with_none_of_the_pairs(kept: list[int], wrappers: tuple[str, ...]) -> None:
    value, gradient = some_of_a_step(kept, wrappers)
    for found_value, found in on_two_ranks(some_of_a_step, kept, wrappers, modules=[__name__]):
        torch.testing.assert_close(found_value, value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-11)


def test_the_dropout_masks_of_an_anchor_are_those_of_the_step() -> None:
    """So at θ̃ = θ all log-probs are 0 under dropout as well."""
    model = tiny_model("gpt2").train()
    anchored = context(model, cut(ROWS, 4), objective("dpo")).anchored()
    pairs = anchored.evaluate().pairs
    for name in ("chosen_logps", "rejected_logps", "chosen_token_logps", "ref_chosen_logps"):
        assert not getattr(pairs, name).any()
    assert pairs.chosen_lengths.all()


@pytest.mark.parametrize("name", ["sam", "asam", "zsharp"])
def test_scope_microbatch_ascends_in_each_micro_batch(name: str) -> None:
    model, goal, reference = tiny_model(), objective("dpo", "drdpo"), shifted(tiny_model())
    perturbing = load_method("geometry", name, rho=RHO, scope="microbatch")
    ctx = context(model, cut(ROWS, 4), goal, reference=reference)
    perturbing.step(ctx)
    found, mean, gaps = flat_grad(model), torch.zeros(()), []
    for half in (ROWS[:4], ROWS[4:]):
        single = context(model, [batch_of(half)], goal, reference=reference)
        load_method("geometry", name, rho=RHO).step(single)
        mean = mean + flat_grad(model) / 2
        gaps.append(single.metrics["geometry/sharpness_gap"])
    torch.testing.assert_close(found, mean, rtol=1e-7, atol=1e-10)
    assert ctx.metrics["geometry/sharpness_gap"] == pytest.approx(sum(gaps) / 2)


@pytest.mark.parametrize("options", [{"interval": 2}, {"rho": 0.0}])
@pytest.mark.parametrize("name", ["sam", "shapo-token"])
def test_scope_microbatch_means_the_objective_of_plain_steps_as_well(name: str, options: dict[str, Any]) -> None:
    """Under a wrapper that couples pairs, plain and perturbed steps of a run descend on the same objective."""
    model, goal, reference = tiny_model(), objective("dpo", "drdpo"), shifted(tiny_model())
    select = {"select": "random"} if name == "shapo-token" else {}
    controller = load_method("geometry", name, scope="microbatch", **options, **select)
    controller.setup(SetupContext(model, 0, Reporter(), lambda folder: None))  # type: ignore[arg-type, return-value]
    batches = [batch_of(ROWS[:5]), batch_of(ROWS[5:])]
    ctx = context(model, batches, goal, reference=reference)
    loss = controller.step(ctx)
    found, expected = flat_grad(model), torch.zeros(())
    for batch in batches:
        context(model, [batch], goal, reference=reference).backward()
        expected = expected + batch.rows / 8 * flat_grad(model)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # norms in fp32, scaled by 5/8
    assert loss.value == pytest.approx(float(ctx.evaluate().value)), "what is reported is the whole step's"


class Counting(PreferenceLoss):
    """A loss with running statistics that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(Options())
        self.seen: list[torch.Tensor] = []

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return F.softplus(pairs.rejected_logps - pairs.chosen_logps)

    def observe(self, pairs: PairBatch) -> None:
        self.seen.append(pairs.chosen_logps)


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize("view", ["only", "anchored"])
def test_running_statistics_see_the_plain_pairs_of_the_whole_step_once(view: str, size: int) -> None:
    model, loss = tiny_model(), Counting()
    ctx = context(model, cut(ROWS, size), Objective(loss, coupled=True))
    other = ctx.only(torch.arange(8) < 3) if view == "only" else ctx.anchored()
    other.backward()
    ctx.evaluate()
    assert len(loss.seen) == 1
    torch.testing.assert_close(loss.seen[0], every_field(model, batch_of(ROWS)).pairs().chosen_logps.detach())


@pytest.mark.parametrize("name", ["esam", "gapo", "msam", "random", "looksam"])
def test_a_step_lets_running_statistics_move_once(name: str) -> None:
    loss = Counting()
    perturbing = load_method("geometry", name, rho=RHO)
    for step in range(3):
        perturbing.step(context(tiny_model(), cut(ROWS, 4), Objective(loss, coupled=True), step=step))
    assert [len(seen) for seen in loss.seen] == [8, 8, 8]
