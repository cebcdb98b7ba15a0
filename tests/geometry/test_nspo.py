"""The null-space constraint: what is free, what the projection keeps, and what stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from heard import Heard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignzoo import load_method
from alignzoo.errors import AlignzooError, IncompatibleError, UsageError
from alignzoo.geometry.null_space import free_directions, read_inputs
from alignzoo.geometry.projections import find_projections
from alignzoo.report import Progress
from alignzoo.step.setup import SetupContext
from alignzoo.testing.tiny import CONFIGS, tiny_model, with_adapter

SHORT = [[5, 9, 31], [7, 8, 44, 12, 3], [11, 60]]
Inputs = dict[str, Tensor]


def constrained(model: Any, texts: Sequence[Sequence[int]] = SHORT, **options: Any) -> tuple[Any, Heard]:
    """A controller that has seen the model and the texts, and what it said."""
    nspo, heard = load_method("geometry", "nspo", **options), Heard()
    run = SetupContext(model, 0, heard, no_probe, texts=lambda given, count: [list(text) for text in texts[:count]])
    nspo.setup(run)
    return nspo, heard


def no_probe(given: str | None) -> Any:
    raise AssertionError("nspo asks for no probe")


def after_step(nspo: Any) -> dict[str, float]:
    """Let it act; returns what it logs."""
    logged: dict[str, float] = {}
    nspo.after_step(SimpleNamespace(log=logged.__setitem__))
    return logged


def move_(model: Any) -> None:
    """A seeded step of full rank for each trainable weight."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype)


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def inputs_of(model: Any, texts: Sequence[Sequence[int]] = SHORT) -> Inputs:
    """``(n, d_in)`` of every MLP map, one text at a time and without padding."""
    seen: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Callable[..., None]:
        return lambda module, given: seen.setdefault(name, []).append(given[0].flatten(0, -2).detach().clone())

    handles = [p.module.register_forward_pre_hook(recorder(p.name)) for p in find_projections(model, "mlp")]
    with torch.no_grad():
        for text in texts:
            model(input_ids=torch.tensor([list(text)]))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def moment_of(rows: Tensor) -> Tensor:
    return rows.T @ rows


def random_moment(size: int, rank: int, seed: int = 0) -> Tensor:
    rows = torch.randn(rank, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return moment_of(rows)


# --- directions ---


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 12), rank=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_projection_is_orthogonal_and_kills_the_data(size: int, rank: int, seed: int) -> None:
    rank = min(rank, size)
    moment = random_moment(size, rank, seed)
    free = free_directions(moment, 1e-9, torch.float64)
    matrix = free.project(torch.eye(size, dtype=torch.float64))
    assert len(free) == size - rank
    assert free.basis.shape[1] <= size / 2
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix @ matrix, matrix)
    torch.testing.assert_close(
        matrix @ moment, torch.zeros_like(moment), atol=1e-9 * max(1.0, float(moment.max())), rtol=0
    )


def test_alpha_decides_what_is_free() -> None:
    turned, _ = torch.linalg.qr(random_moment(4, 4))
    moment = turned @ torch.diag(torch.tensor([1e-3, 0.2, 1.0, 2.0], dtype=torch.float64)) @ turned.T
    for alpha, expected in ((1e-4, 0), (1e-3, 1), (0.2, 2), (0.6, 3), (1.5, 4)):
        free = free_directions(moment, alpha, torch.float64)
        assert len(free) == expected
        spanned = turned[:, :expected]
        torch.testing.assert_close(free.project(turned), spanned @ spanned.T @ turned)


def test_nothing_seen_leaves_everything_free() -> None:
    free = free_directions(torch.zeros(5, 5, dtype=torch.float64), 5e-5, torch.float32)
    rows = torch.randn(5, 3)
    assert len(free) == 5
    assert torch.equal(free.project(rows), rows)


# --- what is read ---


@pytest.mark.parametrize("family", CONFIGS)
def test_moments_are_those_of_one_text_at_a_time(family: str) -> None:
    """Texts of different lengths in one padded batch give the K of each alone; maps that share an input share it."""
    model = tiny_model(family)
    expected = inputs_of(model)
    projections = find_projections(model, "mlp")
    together = read_inputs(model, projections, SHORT, bar=Progress())
    assert [p.name for shared in together for p in shared.readers] == [p.name for p in projections]
    assert len(together) == 4
    for shared in together:
        for reader in shared.readers:
            torch.testing.assert_close(shared.moment, moment_of(expected[reader.name]), atol=1e-9, rtol=1e-9)


def test_reading_leaves_modes_and_hooks_as_they_were() -> None:
    model = tiny_model().train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    read_inputs(model, find_projections(model, "mlp"), SHORT, bar=Progress())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_so_many_tokens_of_a_text_are_read() -> None:
    model = tiny_model()
    short, _ = constrained(model, [text[:2] for text in SHORT])
    cut, _ = constrained(model, SHORT, max_length=2)
    for (one, _), (other, _) in zip(short.held, cut.held, strict=True):
        assert torch.equal(one.basis, other.basis)


# --- what is kept ---


@pytest.mark.parametrize("family", CONFIGS)
def test_outputs_on_the_general_data_stay(family: str) -> None:
    """A held map gives what it gave for every input of the texts, in every family; others are left where they are."""
    model = tiny_model(family)
    start, inputs = weights_of(model), inputs_of(model)
    maps = find_projections(model, "mlp")
    with torch.no_grad():
        outputs = {projection.name: projection.module(inputs[projection.name]) for projection in maps}
    nspo, _ = constrained(model, alpha=1e-12)
    move_(model)
    moved = weights_of(model)
    kept = after_step(nspo)["nspo_kept"]
    assert 0 < kept < 1
    held = {projection.name for projection in maps}
    for name, weight in model.named_parameters():
        assert torch.equal(weight, moved[name]) == (name.rpartition(".")[0] not in held)
    with torch.no_grad():
        for projection in maps:
            assert (projection.weight - start[f"{projection.name}.weight"]).norm() > 0.01
            found = projection.module(inputs[projection.name])
            assert (found - outputs[projection.name]).abs().max() < 1e-8 * projection.weight.norm()


def test_a_bias_moves_where_everything_is_free() -> None:
    model = tiny_model("gpt2")
    nspo, _ = constrained(model, alpha=2.0)
    move_(model)
    moved = weights_of(model)
    after_step(nspo)
    assert all(torch.equal(weight, moved[name]) for name, weight in model.named_parameters())


def test_it_projects_onto_the_subspace_and_stays_there() -> None:
    model = tiny_model()
    start = weights_of(model)
    nspo, _ = constrained(model)
    move_(model)
    moved = weights_of(model)
    kept = after_step(nspo)["nspo_kept"]
    before = after = 0.0
    for free, updates in nspo.held:
        matrix = free.project(torch.eye(free.size, dtype=torch.float64))
        for update in updates:
            name = f"{update._map.name}.weight"
            expected = start[name] + (moved[name] - start[name]) @ matrix
            torch.testing.assert_close(update._map.weight.detach(), expected)
            before += float((moved[name] - start[name]).square().sum())
            after += float((expected - start[name]).square().sum())
    assert kept == pytest.approx((after / before) ** 0.5)
    once = weights_of(model)
    assert after_step(nspo)["nspo_kept"] == pytest.approx(1)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), once[name], atol=1e-14, rtol=0)


def test_a_full_null_space_changes_nothing() -> None:
    model = tiny_model()
    nspo, heard = constrained(model, alpha=2.0)
    move_(model)
    moved = weights_of(model)
    assert after_step(nspo) == {"nspo_kept": 1.0}
    assert all(torch.equal(weight, moved[name]) for name, weight in model.named_parameters())
    assert not heard.warnings


def test_an_empty_null_space_restores_the_start_and_says_so() -> None:
    model = tiny_model()
    start = weights_of(model)
    nspo, heard = constrained(model, [list(range(3, 64)), list(range(63, 3, -1))], alpha=1e-12)
    move_(model)
    assert after_step(nspo) == {"nspo_kept": 0.0}
    for projection in find_projections(model, "mlp"):
        assert torch.equal(projection.weight, start[f"{projection.name}.weight"])
    assert "no free direction in 6 of 6 maps" in heard.warnings[0]
    assert "--geometry.nspo.alpha" in heard.warnings[0]


def test_before_the_weights_move_all_of_nothing_is_kept() -> None:
    assert after_step(constrained(tiny_model())[0]) == {"nspo_kept": 1.0}


def test_the_console_says_how_many_directions_are_free() -> None:
    """Ten tokens leave 22 of 32 directions free where the MLP begins, and 38 of 48 before it ends."""
    _, heard = constrained(tiny_model(), alpha=1e-12)
    assert "164 of 224 directions free in 6 maps; per map 68.8 %, 68.8 %, 79.2 %" in heard.notes[-1]
    assert any("general data (--geometry.nspo.data) works better" in note for note in heard.notes)


def test_a_projected_gradient_does_not_suffice_under_adam() -> None:
    """Adam divides each element by a scale of its own: the step of a gradient in the subspace leaves the subspace."""
    model = tiny_model()
    nspo, _ = constrained(model, alpha=1e-12)
    down = find_projections(model, "down_proj")[0]
    free, _ = next(held for held in nspo.held if held[1][0]._map.name == down.name)
    rows, start = inputs_of(model)[down.name], down.weight.detach().clone()

    def trained(project_gradient: bool) -> Tensor:
        """(W − W_ref) h after five steps of Adam."""
        weight = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([weight], lr=1e-2)
        draw = torch.Generator().manual_seed(0)
        for _ in range(5):
            gradient = torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
            weight.grad = free.project(gradient.T).T if project_gradient else gradient
            optimizer.step()
            if not project_gradient:
                with torch.no_grad():
                    weight.copy_(start + free.project((weight - start).T).T)
        return (weight.detach() - start) @ rows.T

    assert trained(project_gradient=True).abs().max() > 1e-3
    assert trained(project_gradient=False).abs().max() < 1e-12


# --- adapters ---


def test_under_an_adapter_a_is_projected() -> None:
    model = with_adapter(tiny_model())
    nspo, _ = constrained(model, alpha=1e-12)
    move_(model)
    before = weights_of(model)
    kept = after_step(nspo)["nspo_kept"]
    full = projected = 0.0
    for free, updates in nspo.held:
        matrix = free.project(torch.eye(free.size, dtype=torch.float64))
        for update in updates:
            a, b = (f"base_model.model.{update._map.name}.{part}.default.weight" for part in ("lora_A", "lora_B"))
            after = model.get_parameter(a).detach()
            torch.testing.assert_close(after, before[a] @ matrix)
            torch.testing.assert_close(before[b] @ after, before[b] @ before[a] @ matrix)
            full += float((before[b] @ before[a]).square().sum())
            projected += float((before[b] @ after).square().sum())
    assert kept == pytest.approx((projected / full) ** 0.5)
    touched = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(touched) == 6
    assert all("mlp" in name and "lora_A" in name for name in touched)


def test_under_an_adapter_the_outputs_on_the_general_data_stay() -> None:
    model = with_adapter(tiny_model())
    inputs = inputs_of(model)
    nspo, _ = constrained(model, alpha=1e-12)
    move_(model)
    after_step(nspo)
    for projection in find_projections(model, "mlp"):
        rows = inputs[projection.name]
        torch.testing.assert_close(projection.module(rows), projection.module.base_layer(rows))


def test_an_adapter_that_was_trained_before_is_refused() -> None:
    model = with_adapter(tiny_model())
    with torch.no_grad():
        model.get_parameter("base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight").add_(1e-3)
    with pytest.raises(IncompatibleError, match="a previously trained adapter") as refusal:
        constrained(model)
    assert "merge the adapter into its base" in str(refusal.value)


# --- what it is asked for ---


def test_maps_that_do_not_train_are_refused() -> None:
    model = tiny_model()
    for projection in find_projections(model, "mlp"):
        projection.weight.requires_grad_(False)
    with pytest.raises(UsageError, match="none of the maps mlp is trained"):
        constrained(model)
    constrained(model, projections="o_proj")


def test_a_resume_on_other_texts_is_refused() -> None:
    first, _ = constrained(tiny_model())
    other, _ = constrained(tiny_model(), SHORT[:2])
    first.load_state_dict(copy.deepcopy(first.state_dict()))
    with pytest.raises(AlignzooError, match="the general data of nspo has changed"):
        other.load_state_dict(first.state_dict())


def test_outside_of_a_run_there_are_no_texts() -> None:
    nspo = load_method("geometry", "nspo")
    with pytest.raises(AlignzooError, match="no texts outside a run"):
        nspo.setup(SetupContext(tiny_model(), 0, Heard(), no_probe))
