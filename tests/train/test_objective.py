"""The objective of a whole step: exact however it is cut, and differentiated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import golden_pairs, golden_responses
from steps import objective

from alignzoo import PairBatch, load_method
from alignzoo.errors import MethodError
from alignzoo.interfaces import PreferenceLoss, RobustWrapper
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Term
from alignzoo.plugin import Options
from alignzoo.step.context import StepContext
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.steps import Bench, context, gradients
from alignzoo.testing.tiny import batch_of, cut, pair_rows, shifted, tiny_model

ROWS = pair_rows(8, seed=5)


class SortedMargins(PreferenceLoss):
    """A loss whose pairs are coupled by sorting, as in optimal-transport alignment."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        chosen, rejected = pairs.log_ratios()
        return torch.nn.functional.softplus(-(chosen.sort().values - rejected.sort().values))

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.log_ratios()


class Tokens(PreferenceLoss):
    """A loss of token log-probs, coupled through the step's mean."""

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        assert pairs.chosen_token_logps is not None
        assert pairs.rejected_token_logps is not None
        chosen, rejected = pairs.chosen_token_logps.exp().sum(-1), pairs.rejected_token_logps.exp().sum(-1)
        return (rejected - chosen) * (rejected - chosen).mean()

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps


class RunningOffset(PreferenceLoss):
    """A loss with a running mean that must move once per step."""

    offset = 0.0

    def observe(self, pairs: PairBatch) -> None:
        self.offset = 0.9 * self.offset + 0.1 * float((pairs.chosen_logps - pairs.rejected_logps).mean())

    def __call__(self, pairs: PairBatch) -> torch.Tensor:
        return (pairs.chosen_logps - pairs.rejected_logps - self.offset) ** 2

    def rewards(self, pairs: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return pairs.chosen_logps, pairs.rejected_logps


class Flip(RobustWrapper):
    """Ten per cent of each pair's label is the other one."""

    def per_pair(self, loss: Any, pairs: PairBatch) -> torch.Tensor:
        return 0.9 * loss(pairs) + 0.1 * loss(pairs.swap())


GOALS = {
    "dpo": lambda: objective("dpo"),
    "ipo": lambda: objective("ipo"),
    "simpo": lambda: objective("simpo"),
    "dpo-drdpo": lambda: objective("dpo", "drdpo"),
    "ipo-drdpo": lambda: objective("ipo", load_method("robust", "drdpo", beta_prime=20.0)),
    "dpo-flip-drdpo": lambda: objective("dpo", Flip(Options()), "drdpo"),
    "sorted": lambda: objective(SortedMargins(Options()), coupled=True),
    "tokens": lambda: objective(Tokens(Options()), coupled=True),
    "running": lambda: objective(RunningOffset(Options()), coupled=True),
}
each_goal = pytest.mark.parametrize("goal", GOALS)


def direct(model: Any, goal: Objective) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The gradient by ordinary autograd through one batch of everything."""
    ctx = context(model, [batch_of(ROWS)], goal)
    responses = ctx._passes.forward(0)
    goal.observe(responses, coupled=True)
    value = goal.value(responses)
    value.backward()
    return value.detach(), gradients(model)


@each_goal
@pytest.mark.parametrize("size", [8, 3, 1])
def test_step_gradient_does_not_depend_on_how_the_step_is_cut(goal: str, size: int) -> None:
    model = tiny_model()
    value, expected = direct(model, GOALS[goal]())
    loss = context(model, cut(ROWS, size), GOALS[goal]()).backward()
    found = gradients(model)
    assert float(loss.value) == pytest.approx(float(value), rel=1e-12)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_plain_gradient_equals_direct_autograd() -> None:
    model = tiny_model()
    _, expected = direct(model, objective())
    load_method("geometry", "plain").step(context(model, cut(ROWS, 2), objective()))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_micro_batched_drdpo_is_not_the_mean_of_its_parts() -> None:
    """The mistake that this guards against: reduced per micro-batch, one pair each, Dr. DPO is plain DPO."""
    model = tiny_model()
    goal = objective("dpo", load_method("robust", "drdpo", beta_prime=0.01))
    whole = float(context(model, cut(ROWS, 1), goal).backward().value)
    mean = float(context(model, cut(ROWS, 1), objective("dpo")).backward().value)
    assert abs(whole - mean) > 1e-3


@each_goal
def test_evaluate_equals_the_value_of_backward(goal: str) -> None:
    model = tiny_model()
    evaluated = context(model, cut(ROWS, 3), GOALS[goal]())
    value = context(model, cut(ROWS, 3), GOALS[goal]()).backward().value
    assert float(evaluated.evaluate().value) == pytest.approx(float(value), rel=1e-9)


def test_gradient_of_chosen_tensors_touches_no_grad() -> None:
    model = tiny_model()
    tensors = [model.model.layers[0].mlp.down_proj.weight, model.model.norm.weight]
    _, expected = direct(model, objective("dpo", "drdpo"))
    _, found = context(model, cut(ROWS, 3), objective("dpo", "drdpo")).gradient(tensors)
    torch.testing.assert_close(found[0], expected["model.layers.0.mlp.down_proj.weight"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], expected["model.norm.weight"], rtol=1e-9, atol=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_running_statistics_move_once_per_step_and_not_per_pass() -> None:
    model, loss = tiny_model(), RunningOffset(Options())
    ctx = context(model, cut(ROWS, 2), objective(loss, coupled=True))
    ctx.backward()
    once = loss.offset
    ctx.backward()
    assert loss.offset == once != 0


def test_every_verb_of_a_step_sees_the_same_running_statistics() -> None:
    model, loss = tiny_model(), RunningOffset(Options())
    ctx = context(model, cut(ROWS, 2), objective(loss, coupled=True))
    ahead, once = ctx.evaluate().value, loss.offset
    together = ctx.join([part.backward() for part in ctx.parts()]).value
    model.zero_grad()
    after, (direct, _) = ctx.backward().value, ctx.gradient([model.model.norm.weight])
    assert loss.offset == once != 0
    for value in (together, after, direct.value):
        assert float(value) == pytest.approx(float(ahead), rel=1e-12)


def test_both_passes_of_a_step_draw_the_same_dropout() -> None:
    model = tiny_model("gpt2")
    model.train()
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
    ctx = context(model, cut(ROWS, 2), objective(), reference=shifted(model).eval())
    first, second = ctx.evaluate(), ctx.evaluate()
    assert torch.equal(first.pairs.chosen_logps, second.pairs.chosen_logps)
    later = context(model, cut(ROWS, 2), objective(), reference=shifted(model).eval(), step=1).evaluate()
    assert not torch.equal(first.pairs.chosen_logps, later.pairs.chosen_logps)


def test_the_random_state_is_left_as_it_was() -> None:
    model = tiny_model("gpt2").train()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    context(model, cut(ROWS, 4), objective(), reference=shifted(model)).backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_add_up_to_the_mean_of_their_own_objectives() -> None:
    model = tiny_model()
    goal = objective("dpo", "drdpo")
    ctx = context(model, cut(ROWS, 2), goal)
    parts = [part.backward() for part in ctx.parts()]
    found = gradients(model)
    total: dict[str, torch.Tensor] = {}
    for i in range(4):
        context(model, [batch_of(ROWS[2 * i : 2 * i + 2])], goal).backward()
        for name, gradient in gradients(model).items():
            total[name] = total.get(name, torch.zeros_like(gradient)) + gradient / 4
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, total[name], rtol=1e-9, atol=1e-12)
    joined = ctx.join(parts)
    assert joined.row_ids.tolist() == [row["row_id"] for row in ROWS]
    assert len(joined.responses) == 16


def test_parts_of_unequal_size_weigh_by_their_pairs() -> None:
    model, rows = tiny_model(), pair_rows(10, seed=6)
    _, expected = context(model, cut(rows, 4), objective()).backward(), gradients(model)
    ctx = context(model, cut(rows, 4), objective())
    sizes = [len(part.backward().pairs) for part in ctx.parts()]
    assert sizes == [4, 4, 2]
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def parts_of_this_rank() -> dict[str, Any]:
    """A mean over 8 pairs in parts of 3 + 1 on one rank and 1 + 3 on the other: values and gradients, two ways."""
    bench = Bench()
    rank = bench.accelerator.process_index
    rows, first = pair_rows(8, seed=6)[4 * rank : 4 * rank + 4], 1 if rank else 3
    ctx = StepContext(
        bench.context(objective("simpo"), 0).engine, [batch_of(rows[:first]), batch_of(rows[first:])], [None, None], 0
    )
    weight = bench.policy.model.norm.weight
    whole = ctx.backward().value, bench.gradient()
    alone = [(part.gradient([weight]), part.evaluate().value, part.backward().value) for part in ctx.parts()]
    return {
        "whole": whole,
        "added": bench.gradient(),
        "values": [(float(loss.value), float(there), float(back)) for (loss, _), there, back in alone],
        "gradients": [gradient for (_, [gradient]), _, _ in alone],
    }


def test_parts_on_two_ranks_weigh_by_their_pairs() -> None:
    """Each part is the mean over its pairs of both ranks, and the step is the mean over all pairs."""
    rows, bench = pair_rows(8, seed=6), Bench()
    engine = bench.context(objective("simpo"), 0).engine
    weight = bench.policy.model.norm.weight
    together = [rows[:3] + rows[4:5], rows[3:4] + rows[5:]]
    expected = [StepContext(engine, [batch_of(half)], [None], 0).gradient([weight]) for half in together]
    for found in on_two_ranks(parts_of_this_rank, modules=[__name__]):
        torch.testing.assert_close(found["added"], found["whole"][1], rtol=1e-9, atol=1e-12)
        for values, gradient, (loss, [alone]) in zip(found["values"], found["gradients"], expected, strict=True):
            assert values == pytest.approx([float(loss.value)] * 3, rel=1e-9)
            torch.testing.assert_close(gradient, alone, rtol=1e-9, atol=1e-12)


def test_weights_are_the_gradient_of_the_objective_over_losses() -> None:
    quarters = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(objective("dpo").weights(golden_responses()), quarters)
    weights = objective("dpo", "drdpo").weights(golden_responses())
    losses = load_method("loss", "dpo")(golden_pairs())
    torch.testing.assert_close(weights, torch.softmax(-losses, 0))


def test_a_loss_that_reduces_is_refused() -> None:
    class Reduced(Tokens):
        def __call__(self, pairs: PairBatch) -> torch.Tensor:
            return pairs.chosen_logps.mean()

    with pytest.raises(
        MethodError, match=r"Reduced returned shape \(\) for 4 pairs; a loss returns one value per pair"
    ):
        objective(Reduced(Options())).value(golden_responses())


def test_a_method_that_fails_is_named() -> None:
    class Broken(Tokens):
        def __call__(self, pairs: PairBatch) -> torch.Tensor:
            return pairs.chosen_logps / (1 // 0)

    with pytest.raises(MethodError, match="Broken under DrDPO failed on 4 pairs: ZeroDivisionError"):
        objective(Broken(Options()), "drdpo").value(golden_responses())


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda values: None, "returned None for 4 pairs; a loss returns one value per pair"),
        (lambda values: values.tolist(), "returned a list for 4 pairs"),
        (lambda values: values.detach(), "returned values without a gradient"),
        (lambda values: (values > 0).long(), "returned dtype int64 for 4 pairs"),
        (lambda values: values[:1], r"returned shape \(1,\) for 4 pairs"),
        (lambda values: misspelt, "failed on 4 pairs: NameError: name 'misspelt' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    ],
)
def test_what_a_loss_gives_wrong_is_said_of_the_loss(give: Callable[..., Any], words: str) -> None:
    class Lame(Tokens):
        def __call__(self, pairs: PairBatch) -> torch.Tensor:
            return give(pairs.chosen_logps)  # type: ignore[no-any-return]

    with pytest.raises(MethodError, match=rf"^Lame (under DrDPO )?{words}.* \({__file__}:\d+\)") as error:
        objective(Lame(Options()), "drdpo").cotangents(golden_responses())
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    ("name", "give", "words"),
    [
        ("objective", lambda losses: None, r"returned None; objective\(\) returns a scalar"),
        ("objective", lambda losses: losses, r"returned shape \(4,\); objective\(\) returns a scalar"),
        ("objective", lambda losses: losses.mean().detach(), "returned values without a gradient"),
        ("objective", lambda losses: 1 // 0, r"failed in objective\(\) on 4 pairs: ZeroDivisionError"),
        ("weights", lambda losses: losses.mean(), r"returned shape \(\); weights\(\) returns one per pair"),
    ],
)
def test_what_a_wrapper_gives_wrong_is_said_of_it(name: str, give: Callable[..., Any], words: str) -> None:
    lame = type("Lame", (RobustWrapper,), {"objective": lambda self, losses: losses.mean()})
    setattr(lame, name, lambda self, losses: give(losses))
    whole = Objective(objective("dpo").loss, [lame(Options())])
    with pytest.raises(MethodError, match=f"^Lame {words}.*{__file__}"):
        (whole.weights if name == "weights" else whole.cotangents)(golden_responses())


@pytest.mark.parametrize("given", [None, torch.zeros(4), (torch.zeros(4), None), (torch.zeros(()), torch.zeros(()))])
def test_rewards_that_are_none_are_said_of_the_loss(given: Any) -> None:
    class Lame(Tokens):
        def rewards(self, pairs: PairBatch) -> Any:
            return given

    with pytest.raises(MethodError, match=r"^Lame returned .*; rewards\(\) returns two tensors"):
        Term(Lame(Options())).rewards(golden_pairs())


def test_two_objectives_do_not_silently_become_one() -> None:
    with pytest.raises(MethodError, match="each define their own objective"):
        objective("dpo", "drdpo", "drdpo")


def test_running_statistics_see_the_whole_step_once_also_where_parts_work_alone() -> None:
    model, calls = tiny_model(), []

    class Watching(RunningOffset):
        def observe(self, pairs: PairBatch) -> None:
            calls.append(len(pairs))

    ctx = context(model, cut(ROWS, 2), objective(Watching(Options()), coupled=True))
    for part in ctx.parts():
        part.gradient([model.model.norm.weight])
        part.backward()
    assert calls == [8]


def test_swap_exchanges_every_field_and_is_its_own_inverse() -> None:
    pairs = replace(golden_pairs(), groups=torch.arange(4))
    swapped = pairs.swap()
    assert torch.equal(swapped.ref_chosen_logps, pairs.ref_rejected_logps)  # type: ignore[arg-type]
    assert torch.equal(swapped.groups, pairs.groups)  # type: ignore[arg-type]
    for name, value in swapped.swap().present().items():
        assert torch.equal(value, getattr(pairs, name))
