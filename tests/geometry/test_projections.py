"""Neurons are found by structure, in every family, wrapped or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from alignzoo_geometry.ascent import named_by
from heard import Heard

from alignzoo import load_method
from alignzoo.errors import ModelError, UsageError
from alignzoo.geometry.projections import find_down_projections, find_projections, linear_maps, out_of_reach
from alignzoo.geometry.subspace import neuron_cosines, select_neurons
from alignzoo.step.setup import SetupContext
from alignzoo.testing.tiny import CONFIGS, SMALL, tiny_model


def no_probe(_folder: str | None) -> Any:
    raise AssertionError("this selection needs no probe")


NAMES = {"gpt-neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h", "gpt2": "transformer.h.{}.mlp.c_proj"}


@pytest.mark.parametrize("family", CONFIGS)
def test_finds_the_down_projection_of_every_layer(family: str) -> None:
    model = tiny_model(family)
    found = find_down_projections(model)
    name = NAMES.get(family, "model.layers.{}.mlp.down_proj")
    assert [p.name for p in found] == [name.format(0), name.format(1)]
    for projection in found:
        assert projection.value_vectors().shape == (projection.inner, 32)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_value_vector_is_what_its_neuron_writes(family: str) -> None:
    """Feed one unit of the inner layer: the output moves by that neuron's value vector."""
    projection = find_down_projections(tiny_model(family))[1]
    silent = torch.zeros(1, projection.inner, dtype=torch.float64)
    firing = silent.clone()
    firing[0, 5] = 1
    difference = (projection.module(firing) - projection.module(silent))[0]
    torch.testing.assert_close(difference, projection.value_vectors()[5])


def test_finds_the_wrapped_maps_of_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    plain = find_down_projections(tiny_model())
    adapted = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    found = find_down_projections(adapted)
    assert [type(p.module).__name__ for p in found] == ["Linear", "Linear"]
    assert all(hasattr(p.module, "lora_A") for p in found), "the outer map, adapter included"
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.value_vectors(), other.value_vectors())

    assert [p.name for p in found] == [p.name for p in plain], "an adapter does not rename the maps"


@pytest.mark.parametrize("family", CONFIGS)
def test_a_value_vector_of_any_map_is_what_its_input_writes(family: str) -> None:
    for projection in linear_maps(tiny_model(family)):
        silent = torch.zeros(1, projection.inner, dtype=torch.float64)
        firing = silent.clone()
        firing[0, 5] = 1
        difference = (projection.module(firing) - projection.module(silent))[0]
        torch.testing.assert_close(difference, projection.value_vectors()[5])


@pytest.mark.parametrize("family", CONFIGS)
def test_attention_and_mlp_each_write_into_the_residual_stream_once(family: str) -> None:
    writing = [p.name.rpartition(".")[2] for p in linear_maps(tiny_model(family)) if p.residual and p.layer == 1]
    expected = {"gpt-neox": ["dense", "dense_4h_to_h"], "gpt2": ["c_proj", "c_proj"]}
    assert sorted(writing) == expected.get(family, ["down_proj", "o_proj"])


@pytest.mark.parametrize("family", CONFIGS)
def test_the_maps_of_the_mlp(family: str) -> None:
    fused = {"phi3": ["gate_up_proj", "down_proj"], "gpt2": ["c_fc", "c_proj"]}
    fused["gpt-neox"] = ["dense_h_to_4h", "dense_4h_to_h"]
    found = find_projections(tiny_model(family), "mlp")
    local = fused.get(family, ["gate_proj", "up_proj", "down_proj"])
    assert [p.name.rpartition(".")[2] for p in found] == 2 * local
    assert {p.block.rpartition(".")[2] for p in found} == {"mlp"}


def test_an_mlp_without_a_module_of_its_own() -> None:
    config = transformers.OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32
    )
    found = find_projections(transformers.AutoModelForCausalLM.from_config(config), "mlp")
    assert [p.name.rpartition(".")[2] for p in found] == ["fc1", "fc2", "fc1", "fc2"]


def test_maps_by_name() -> None:
    model = tiny_model()
    layers = "model.layers.{}."
    for patterns, local in {
        "o_proj": ["self_attn.o_proj"],
        "self_attn.o_proj": ["self_attn.o_proj"],
        "down_proj": ["mlp.down_proj"],
        "down_proj, v_proj": ["self_attn.v_proj", "mlp.down_proj"],
        "mlp": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
        "mlp, o_proj": ["self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
        "mlp.*": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    }.items():
        expected = [layers.format(layer) + name for layer in (0, 1) for name in local]
        assert [p.name for p in find_projections(model, patterns)] == expected
    assert [p.name for p in find_projections(model, "model.layers.1.*.o_proj")] == ["model.layers.1.self_attn.o_proj"]
    for patterns in ("c_proj", "o_proj,nothing", "lm_head", " , "):
        with pytest.raises(UsageError, match="projections"):
            find_projections(model, patterns)


def test_a_model_without_such_maps_is_refused_with_what_to_do() -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(ModelError, match="no MLP down projection") as refusal:
        find_down_projections(transformers.AutoModelForCausalLM.from_config(config))
    assert "--geometry plain" in str(refusal.value)


MIXTURE = {**SMALL, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}


def of_config(config: transformers.PretrainedConfig) -> Any:
    return transformers.AutoModelForCausalLM.from_config(config)


def deepseek() -> transformers.PretrainedConfig:
    """A dense layer, then one of a shared and 8 routed experts."""
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 8, "n_group": 2, "topk_group": 1}
    attention = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    return transformers.DeepseekV3Config(**SMALL, **experts, **attention, first_k_dense_replace=1)


MIXTURES: dict[str, tuple[Any, list[str], str]] = {
    "qwen2-moe": (
        lambda: transformers.Qwen2MoeConfig(**MIXTURE, shared_expert_intermediate_size=24),
        ["0.mlp.shared_expert.down_proj", "1.mlp.shared_expert.down_proj"],
        "48 of 176 MLP neurons (27%)",
    ),
    "qwen3-moe": (
        lambda: transformers.Qwen3MoeConfig(**MIXTURE, mlp_only_layers=[0]),
        ["0.mlp.down_proj"],
        "48 of 112 MLP neurons (43%)",
    ),
    "deepseek": (deepseek, ["0.mlp.down_proj", "1.mlp.shared_experts.down_proj"], "64 of 192 MLP neurons (33%)"),
    "llama4": (
        lambda: transformers.Llama4TextConfig(**SMALL, intermediate_size_mlp=64, num_local_experts=4, head_dim=8),
        ["0.feed_forward.shared_expert.down_proj", "1.feed_forward.shared_expert.down_proj"],
        "96 of 480 MLP neurons (20%)",
    ),
}


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_says_how_much_of_its_mlps_can_be_selected(family: str) -> None:
    config, maps, figures = MIXTURES[family]
    model, heard = of_config(config()), Heard()
    assert [p.name for p in find_down_projections(model)] == [f"model.layers.{name}" for name in maps]
    for projections, warned in (("down_proj", True), ("mlp", True), ("o_proj", False)):
        heard.warnings.clear()
        shapo = load_method("geometry", "shapo-token", select="random", projections=projections)
        shapo.setup(SetupContext(model, seed=0, report=heard, probe=no_probe))
        assert [text.startswith(figures) for text in heard.warnings] == [True] * warned
    assert ".experts.down_proj): --geometry sam" in str(out_of_reach(model))
    assert out_of_reach(tiny_model()) is None


@pytest.mark.parametrize("config", [transformers.Qwen3MoeConfig, transformers.MixtralConfig])
def test_a_mixture_of_routed_experts_alone_is_refused_with_what_reaches_them(config: Any) -> None:
    model = of_config(config(**MIXTURE))
    with pytest.raises(ModelError, match="all MLP neurons belong to routed experts") as refusal:
        find_down_projections(model)
    assert "--geometry sam --geometry.select '*.experts.*'" in str(refusal.value)
    assert named_by(dict(model.named_parameters()), "*.experts.*")


def test_selection_follows_the_cosine() -> None:
    projections = find_down_projections(tiny_model())
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    cosines = neuron_cosines(projections, direction)
    vector = projections[1].value_vectors()[3]
    expected = torch.dot(vector, direction.double()) / (vector.norm() * direction.norm())
    assert float(cosines[SMALL["intermediate_size"] + 3]) == pytest.approx(float(expected), abs=1e-6)

    def chosen(select: str) -> torch.Tensor:
        index = select_neurons(projections, select, 0.1, direction=direction, seed=4)  # type: ignore[arg-type]
        return torch.cat([part + layer * SMALL["intermediate_size"] for layer, part in enumerate(index)])

    count = int(0.1 * len(cosines))
    assert set(chosen("anti-toxic").tolist()) == set(cosines.argsort()[:count].tolist())
    assert set(chosen("toxic").tolist()) == set(cosines.argsort(descending=True)[:count].tolist())
    assert set(chosen("abs").tolist()) == set(cosines.abs().argsort(descending=True)[:count].tolist())
    assert len(chosen("random")) == count
    assert torch.equal(chosen("random"), chosen("random"))
    assert len(chosen("all")) == len(cosines)


@pytest.mark.parametrize(("share", "count"), [(1e-4, 1), (0.02, 1), (0.0209, 2), (0.99, 95), (1.0, 96)])
def test_a_share_is_rounded_down_to_at_least_one_neuron(share: float, count: int) -> None:
    projections = find_down_projections(tiny_model())
    assert sum(map(len, select_neurons(projections, "random", share))) == count
