"""ShaPO at token level: the perturbation is what was asked for, and nothing else is left behind."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden import golden_responses
from steps import objective

from alignzoo import load_method
from alignzoo.errors import AlignzooError, UsageError
from alignzoo.geometry.projections import Projection, find_down_projections
from alignzoo.geometry.side_branch import SideBranches
from alignzoo.interfaces import StepLoss
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.setup import SetupContext
from alignzoo.testing.steps import context, gradients
from alignzoo.testing.tiny import CONFIGS, SMALL, batch_of, cut, pair_rows, shifted, tiny_model, with_adapter

ROWS = pair_rows(8, seed=9)


def no_probe(_folder: str | None) -> Any:
    raise AssertionError("this selection needs no probe")


def controller(model: Any, **options: Any) -> Any:
    """A controller on random neurons, perturbing at every step."""
    built = load_method("geometry", "shapo-token", **{"select": "random", "share": 0.1, "interval": 1, **options})
    built.setup(SetupContext(model, seed=0, report=Reporter(), probe=no_probe))
    return built


def selected_columns(model: Any, shapo: Any) -> list[tuple[Any, torch.Tensor]]:
    """The selected parts of the weights as (parameter, index of its columns)."""
    return [(branch.module.weight, branch.index) for branch in shapo.branches._branches]


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_radius_0_is_plain_bit_for_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        model, reference = tiny_model(dtype=dtype), shifted(tiny_model(dtype=dtype))
        goal = objective("dpo", "drdpo")
        plain = load_method("geometry", "plain").step(context(model, cut(ROWS, 2), goal, reference=reference))
        expected = gradients(model)
        shapo = controller(model, rho=0.0)
        loss = shapo.step(context(model, cut(ROWS, 2), goal, reference=reference))
        found = gradients(model)
        assert torch.equal(loss.value, plain.value)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("family", CONFIGS)
def test_side_branch_equals_in_place_perturbation(family: str) -> None:
    model, rho = tiny_model(family), 0.4
    goal = objective("dpo", "drdpo")
    shapo = controller(model, rho=rho)
    ctx = context(model, cut(ROWS, 4), goal)
    clean = shapo.step(ctx)
    found = gradients(model)

    perturbed = copy.deepcopy(model)
    columns = selected_columns(perturbed, controller(perturbed, rho=rho))
    transposed = family == "gpt2"  # Conv1D: a neuron is a row
    before = context(perturbed, cut(ROWS, 4), goal, reference=shifted(model)).backward()
    parts = [w.grad[i] if transposed else w.grad[:, i] for w, i in columns]
    norm = torch.sqrt(sum((part**2).sum() for part in parts))  # type: ignore[arg-type]
    with torch.no_grad():
        for (weight, index), part in zip(columns, parts, strict=True):
            weight.index_add_(0 if transposed else 1, index, rho * part / norm)
    perturbed.zero_grad()
    after = context(perturbed, cut(ROWS, 4), goal, reference=shifted(model)).backward()
    there = [w.grad[i] if transposed else w.grad[:, i] for w, i in columns]
    expected = gradients(perturbed)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-9)
    assert torch.equal(clean.value, before.value), (
        "the step reports the loss at the weights, not at the perturbed point"
    )
    assert ctx.metrics["geometry/radius"] == pytest.approx(rho)
    assert ctx.metrics["geometry/ascent_grad_norm"] == pytest.approx(float(norm))
    assert ctx.metrics["geometry/sharpness_gap"] == pytest.approx(float(after.value - before.value), rel=1e-6)
    assert ctx.metrics["geometry/survival"] == pytest.approx(1)
    turned = torch.nn.functional.cosine_similarity(*(torch.cat([p.flatten() for p in x]) for x in (parts, there)), 0)
    assert ctx.metrics["geometry/gradient_cosine"] == pytest.approx(float(turned))


class Quadratic:
    """A context whose objective is ½‖(W + Δ_S)x − t‖² averaged over rows: W is one linear map."""

    step = 0
    engine = SimpleNamespace(world=1)

    def __init__(self, linear: torch.nn.Linear, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.linear, self.inputs, self.targets = linear, inputs, targets
        self.metrics: dict[str, float] = {}

    def _loss(self) -> torch.Tensor:
        return 0.5 * ((self.linear(self.inputs) - self.targets) ** 2).sum(-1).mean()

    def _report(self, loss: torch.Tensor) -> StepLoss:
        return StepLoss(loss.detach(), golden_responses(), torch.arange(4))

    def gradient(self, tensors: list[torch.Tensor]) -> tuple[StepLoss, list[torch.Tensor]]:
        loss = self._loss()
        return self._report(loss), list(torch.autograd.grad(loss, tensors))

    def backward(self) -> StepLoss:
        loss = self._loss()
        loss.backward()
        return self._report(loss)

    def log(self, name: str, value: float) -> None:
        self.metrics[name] = value


@pytest.mark.parametrize("radius", ["normalized", "gap"])
def test_perturbed_gradient_on_a_quadratic(radius: str) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    linear = torch.nn.Linear(6, 3, bias=False, dtype=torch.float64)
    inputs, targets, selected, share, rho = draw(10, 6), draw(10, 3), torch.tensor([1, 4]), 0.3, 0.7
    length: dict[str, Any] = {"radius": "gap", "gap_share": share} if radius == "gap" else {"rho": rho}
    shapo = load_method("geometry", "shapo-token", select="random", interval=1, **length)
    shapo.branches = SideBranches([Projection(0, "map", linear, 6, 3)], [selected])
    ctx: Any = Quadratic(linear, inputs, targets)
    shapo.step(ctx)

    weight, moment = linear.weight.detach(), inputs.T @ inputs / 10  # ∇L(W) = W·A − B
    cross = targets.T @ inputs / 10
    mask = torch.zeros(6, dtype=torch.float64).index_fill_(0, selected, 1)
    ascent = (weight @ moment - cross) * mask
    value = float(0.5 * ((inputs @ weight.T - targets) ** 2).sum(-1).mean())
    epsilon = (share * value / ascent.norm() if radius == "gap" else rho) * ascent / ascent.norm()
    torch.testing.assert_close(linear.weight.grad, (weight + epsilon) @ moment - cross)
    gap = 0.5 * torch.trace(epsilon @ moment @ epsilon.T) + (epsilon * (weight @ moment - cross)).sum()
    assert ctx.metrics["sharpness_gap"] == pytest.approx(float(gap))
    assert ctx.metrics["radius"] == pytest.approx(float(epsilon.norm()))
    assert ctx.metrics["predicted_rise"] == pytest.approx(float((ascent * epsilon).sum()))
    there = (linear.weight.grad * mask).flatten()  # type: ignore[operator]
    turned = torch.nn.functional.cosine_similarity(ascent.flatten(), there, dim=0)
    assert ctx.metrics["gradient_cosine"] == pytest.approx(float(turned))
    assert float(turned) < 0.999, "the test would not notice a cosine of 1"


def test_only_every_interval_th_step_is_perturbed() -> None:
    model = tiny_model()
    shapo = controller(model, interval=5)
    perturbed = []
    for step in range(10):
        ctx = context(model, cut(ROWS, 8), objective(), step=step)
        shapo.step(ctx)
        perturbed.append(bool(ctx.metrics))
    assert [step + 1 for step, yes in enumerate(perturbed) if yes] == [5, 10]


def test_raw_radius_draws_gamma_and_does_not_normalise() -> None:
    model = tiny_model()
    shapo = controller(model, radius="raw", gamma_min=0.5, gamma_max=1.5)
    factors = []
    for step in range(6):
        ctx = context(model, cut(ROWS, 8), objective(), step=step)
        shapo.step(ctx)
        factors.append(ctx.metrics["geometry/radius"] / ctx.metrics["geometry/ascent_grad_norm"])
    assert all(0.5 <= factor <= 1.5 for factor in factors)
    assert len(set(factors)) == 6
    again = context(model, cut(ROWS, 8), objective(), step=0)
    shapo.step(again)
    assert again.metrics["geometry/radius"] / again.metrics["geometry/ascent_grad_norm"] == factors[0]


def test_official_preset_is_raw_per_micro_batch_and_can_be_overridden() -> None:
    official = load_method("geometry", "shapo-token", preset="official", select="random").options
    assert (official.radius, official.scope, official.interval, official.share) == ("raw", "microbatch", 5, 0.01)
    assert (official.gamma_min, official.gamma_max, official.select) == (2e-6, 4e-6, "random")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"radius": "raw", "rho": 0.1}, "rho has no effect"),
        ({"gamma_max": 1.0}, "gamma_min and gamma_max have no effect"),
        ({"radius": "gap", "gamma_max": 1.0}, "gamma_min and gamma_max have no effect with radius gap"),
        ({"radius": "gap", "rho": 0.1}, "rho has no effect with radius gap"),
        ({"gap_share": 0.1}, "gap_share has no effect with radius normalized"),
        ({"preset": "official", "gap_share": 0.1}, "gap_share has no effect with radius raw"),
        ({"radius": "raw", "gamma_min": 1.0, "gamma_max": 0.5}, "above"),
        ({"select": "all", "share": 0.5}, "share has no effect"),
        ({"select": "random", "probe": "x"}, "probe has no effect"),
        ({"preset": "official", "rho": 0.1}, "rho has no effect"),
        ({"interval": 0}, "greater than or equal to 1"),
        ({"share": 0.1, "count": 3}, "exclude each other"),
        ({"select": "all", "count": 3}, "count has no effect"),
        ({"select": "anti_toxic"}, "neither anti-toxic, .* nor a file or folder"),
        ({"select": "tests", "share": 0.5}, "share has no effect with select tests"),
        ({"select": "tests", "projections": "o_proj"}, "projections has no effect"),
        ({"select": "tests", "probe": "x"}, "probe has no effect"),
    ],
)
def test_an_option_that_would_do_nothing_is_an_error(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_method("geometry", "shapo-token", **options)


@pytest.mark.parametrize("scope", ["step", "microbatch"])
def test_scope_microbatch_perturbs_each_micro_batch_by_its_own_gradient(scope: str) -> None:
    model, goal = tiny_model(), objective("dpo", "drdpo")
    shapo = controller(model, rho=0.5, scope=scope)
    shapo.step(context(model, cut(ROWS, 4), goal))
    found = gradients(model)["model.layers.0.mlp.up_proj.weight"]
    mean = torch.zeros_like(found)
    for half in (ROWS[:4], ROWS[4:]):
        controller(model, rho=0.5).step(context(model, [batch_of(half)], goal))
        mean += gradients(model)["model.layers.0.mlp.up_proj.weight"] / 2
    assert torch.allclose(found, mean, rtol=1e-8, atol=1e-12) == (scope == "microbatch")


def test_raw_radius_of_a_micro_batch_is_gamma_times_its_own_gradient() -> None:
    """The gradient that γ multiplies is the micro-batch's, whatever the number of micro-batches."""
    model, goal = tiny_model(), objective("dpo", "drdpo")
    options = {"radius": "raw", "scope": "microbatch", "gamma_min": 1.0, "gamma_max": 1.0}
    ctx = context(model, cut(ROWS, 4), goal)
    controller(model, **options).step(ctx)
    alone = []
    for half in (ROWS[:4], ROWS[4:]):
        single = context(model, [batch_of(half)], goal)
        controller(model, **options).step(single)
        alone.append(single.metrics["geometry/radius"])
    assert ctx.metrics["geometry/radius"] == pytest.approx(sum(alone) / 2)


def test_a_branch_at_zero_changes_no_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        model, batch = tiny_model(dtype=dtype), batch_of(ROWS)
        projections = find_down_projections(model)
        branches = SideBranches(projections, [torch.arange(8)] * len(projections))
        with torch.no_grad():
            expected = model(input_ids=batch.input_ids).logits
            with branches.attached():
                assert torch.equal(model(input_ids=batch.input_ids).logits, expected)


def test_the_selection_travels_in_the_state() -> None:
    model = tiny_model()
    first, second = controller(model), controller(model, share=0.2)
    second.load_state_dict(first.state_dict())
    goal = objective()
    first.step(context(model, cut(ROWS, 4), goal))
    expected = gradients(model)
    second.step(context(model, cut(ROWS, 4), goal))
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(model).items())


def test_frozen_base_under_an_adapter_is_perturbed_all_the_same() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).double()
    goal, reference = objective(), shifted(tiny_model())
    plain_ctx = context(model, cut(ROWS, 4), goal, reference=reference)
    load_method("geometry", "plain").step(plain_ctx)
    plain = gradients(model)
    ctx = context(model, cut(ROWS, 4), goal, reference=reference)
    controller(model, rho=1.0).step(ctx)
    found = gradients(model)
    assert ctx.metrics["geometry/sharpness_gap"] > 0
    assert found.keys() == plain.keys()
    assert any(not torch.allclose(found[name], plain[name]) for name in found)


def test_activation_checkpointing_gives_the_same_gradient() -> None:
    model, goal = tiny_model(), objective("dpo", "drdpo")
    controller(model, rho=0.5).step(context(model, cut(ROWS, 4), goal, reference=shifted(model)))
    expected = gradients(model)
    reference = shifted(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    controller(model, rho=0.5).step(context(model, cut(ROWS, 4), goal, reference=reference))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def survival(model: Any, batch: Any, epsilon: float, *, autocast: bool) -> float:
    """Share of a given perturbation that arrives in the forward."""
    projections = find_down_projections(model)
    branches = SideBranches(projections, [torch.arange(8)] * len(projections))
    generator = torch.Generator().manual_seed(0)
    with branches.attached(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        branches.perturb([epsilon * torch.randn(d.shape, generator=generator).to(d.dtype) for d in branches.deltas])
        with torch.no_grad():
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        return branches.survival()


def test_survival_tells_how_much_of_the_perturbation_reaches_the_forward() -> None:
    batch = batch_of(ROWS)
    exact, half = tiny_model(dtype=torch.float32), tiny_model(dtype=torch.bfloat16)
    assert survival(exact, batch, 1e-3, autocast=False) == pytest.approx(1, abs=1e-3)
    assert survival(exact, batch, 1e-3, autocast=True) == pytest.approx(1, abs=0.02), "kept in fp32 under autocast"
    assert survival(half, batch, 1e-6, autocast=False) < 0.9, "below the grid of a bf16 model's outputs"


def test_the_selection_is_kept_beside_the_run(tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file

    model = tiny_model()
    shapo = load_method("geometry", "shapo-token", select="random", share=0.1)
    shapo.setup(SetupContext(model, seed=0, report=Reporter(), probe=no_probe, folder=tmp_path))
    saved = load_file(tmp_path / "geometry" / "selection.safetensors")
    facts = json.loads((tmp_path / "geometry" / "selection.json").read_text())
    assert facts["neurons"] == sum(len(index) for index in saved.values()) == int(0.1 * 96)
    assert facts["select"] == "random"


def saved(model: Any, folder: Path, **options: Any) -> Any:
    """A controller on random neurons that has saved its selection beside the run in ``folder``."""
    shapo = load_method("geometry", "shapo-token", **{"select": "random", "share": 0.1, **options})
    shapo.setup(SetupContext(model, seed=3, report=Reporter(), probe=no_probe, folder=folder))
    return shapo


@pytest.mark.parametrize("within", ["", "geometry", "geometry/selection.safetensors"])
def test_a_saved_selection_is_used_again(within: str, tmp_path: Path) -> None:
    model = tiny_model()
    first = saved(model, tmp_path, projections="down_proj,v_proj")
    again = load_method("geometry", "shapo-token", select=str(tmp_path / within))
    again.setup(SetupContext(model, seed=0, report=Reporter(), probe=no_probe))
    assert [p.name for p in again.projections] == [p.name for p in first.projections]
    assert all(torch.equal(a, b) for a, b in zip(again.selected, first.selected, strict=True))
    assert again.options.needs() == frozenset()


def test_a_saved_selection_fits_the_same_model_under_an_adapter(tmp_path: Path) -> None:
    first = saved(tiny_model(), tmp_path)
    again = load_method("geometry", "shapo-token", select=str(tmp_path))
    again.setup(SetupContext(with_adapter(tiny_model()), seed=0, report=Reporter(), probe=no_probe))
    assert all(torch.equal(a, b) for a, b in zip(again.selected, first.selected, strict=True))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no saved selection in"),
        (b"not safetensors", "damaged"),
        ({"model.layers.7.mlp.down_proj": [1]}, "layers.7.mlp.down_proj, which this model does not have"),
        ({"model.layers.0.mlp.down_proj": [48]}, "selects neuron 48 .* which has 48"),
        ({"model.layers.0.mlp.down_proj": [3, 3]}, "not a list of neurons"),
        ({"model.layers.0.mlp.down_proj": [-1]}, "not a list of neurons"),
        ({"model.layers.0.mlp.down_proj": [0.5]}, "not a list of neurons"),
        ({"model.layers.0.mlp.down_proj": []}, "selects no neuron"),
    ],
)
def test_a_selection_that_does_not_fit_says_why(content: Any, complaint: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "selection.safetensors"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        kinds = {name: torch.float64 if 0.5 in index else torch.int64 for name, index in content.items()}
        save_file({name: torch.tensor(index, dtype=kinds[name]) for name, index in content.items()}, file)
    shapo = load_method("geometry", "shapo-token", select=str(tmp_path))
    with pytest.raises(AlignzooError, match=complaint):
        shapo.setup(SetupContext(tiny_model(), seed=0, report=Reporter(), probe=no_probe))


def test_a_selection_of_a_narrower_model_is_refused(tmp_path: Path) -> None:
    import transformers

    narrow = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, "intermediate_size": 40}))
    saved(narrow, tmp_path)
    shapo = load_method("geometry", "shapo-token", select=str(tmp_path))
    with pytest.raises(UsageError, match="had 40 neurons, but in this model it has 48"):
        shapo.setup(SetupContext(tiny_model(), seed=0, report=Reporter(), probe=no_probe))


def test_count_is_the_number_of_neurons() -> None:
    model = tiny_model()
    shapo = load_method("geometry", "shapo-token", select="random", count=5)
    shapo.setup(SetupContext(model, seed=0, report=Reporter(), probe=no_probe))
    assert sum(map(len, shapo.selected)) == 5
    many = load_method("geometry", "shapo-token", select="random", count=97)
    with pytest.raises(UsageError, match="count 97 is more than the 96 neurons"):
        many.setup(SetupContext(model, seed=0, report=Reporter(), probe=no_probe))


@pytest.mark.parametrize("patterns", ["o_proj", "v_proj", "q_proj,mlp.*", "down_proj"])
def test_neurons_of_other_maps_are_perturbed_like_their_weights(patterns: str) -> None:
    model, rho = tiny_model(), 0.4
    goal = objective()
    shapo = controller(model, rho=rho, projections=patterns)
    shapo.step(context(model, cut(ROWS, 4), goal))
    found = gradients(model)

    moved = copy.deepcopy(model)
    columns = selected_columns(moved, controller(moved, rho=rho, projections=patterns))
    context(moved, cut(ROWS, 4), goal, reference=shifted(model)).backward()
    parts = [w.grad[:, i] for w, i in columns]
    length = torch.sqrt(sum((part**2).sum() for part in parts))  # type: ignore[arg-type]
    with torch.no_grad():
        for (weight, index), part in zip(columns, parts, strict=True):
            weight.index_add_(1, index, rho * part / length)
    moved.zero_grad()
    context(moved, cut(ROWS, 4), goal, reference=shifted(model)).backward()
    for name, gradient in gradients(moved).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("patterns", ["v_proj", "q_proj", "down_proj,up_proj"])
def test_a_probe_selects_only_where_the_residual_stream_is_written(patterns: str) -> None:
    shapo = load_method("geometry", "shapo-token", projections=patterns)
    with pytest.raises(UsageError, match="does not write there") as refusal:
        shapo.setup(SetupContext(tiny_model(), seed=0, report=Reporter(), probe=no_probe))
    assert "random, all, or a saved selection" in str(refusal.value)


def test_the_official_preset_makes_way_for_other_choices_of_neurons(tmp_path: Path) -> None:
    saved(tiny_model(), tmp_path)
    for options in ({"count": 3}, {"select": "all"}, {"select": str(tmp_path)}):
        made = load_method("geometry", "shapo-token", preset="official", **options).options
        assert (made.radius, made.scope) == ("raw", "microbatch")


@pytest.mark.parametrize("scope", ["step", "microbatch"])
def test_bf16_autocast_frozen_base_and_checkpointing_at_once(scope: str) -> None:
    """All that a LoRA run under --precision bf16 brings, in one step: figures are finite and something has moved."""
    model = with_adapter(tiny_model(dtype=torch.float32))
    goal, reference = objective("dpo", "drdpo"), shifted(tiny_model(dtype=torch.float32))
    shapo = controller(model, rho=0.5, scope=scope)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    before = bits(model)
    ctx = context(model, cut(ROWS, 4), goal, reference=reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shapo.step(ctx)
    figures = {name: ctx.metrics[f"geometry/{name}"] for name in ("radius", "survival", "gradient_cosine")}
    assert figures["radius"] == pytest.approx(0.5, rel=1e-3)
    assert figures["survival"] == pytest.approx(1, abs=0.02)
    assert -1 <= figures["gradient_cosine"] < 1
    assert ctx.metrics["geometry/sharpness_gap"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(model).items())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(model).values())


def test_context_is_what_the_interface_promises() -> None:
    assert all(hasattr(StepContext, verb) for verb in ("backward", "gradient", "evaluate", "parts", "join", "log"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_reaches_the_loop(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop stops such a run and names the pairs; the controller must not fail on its own before that."""
    from alignzoo.testing.stages import mean_goal
    from alignzoo.testing.steps import Bench

    bench, controller = Bench(), load_method("geometry", "shapo-token", interval=1, select="random", share=0.1)
    bench.setup(controller)
    ctx = bench.context(mean_goal(), 0)
    monkeypatch.setattr(ctx, "gradient", lambda tensors: (ctx.evaluate(), [torch.full_like(t, bad) for t in tensors]))
    controller.step(ctx)
    assert ctx.metrics["geometry/radius"] == 0
