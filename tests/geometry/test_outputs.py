"""An output's weights are found however a module stores them, so a network written in other modules moves alike."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from steps import objective
from torch import nn
from transformers.pytorch_utils import Conv1D

from alignzoo import load_method
from alignzoo.geometry.outputs import output_axes
from alignzoo.testing.steps import context
from alignzoo.testing.tiny import SMALL, cut, pair_rows, shifted, tiny_model

ROWS = pair_rows(4)


def in_linear_maps(model: Any) -> Any:
    """The same network with an ``nn.Linear`` for every ``Conv1D``."""
    other = copy.deepcopy(model)
    for name, module in list(other.named_modules()):
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            linear = nn.Linear(inputs, outputs, dtype=module.weight.dtype)
            linear.weight, linear.bias = nn.Parameter(module.weight.detach().T.clone()), module.bias
            other.set_submodule(name, linear)
    return other


def constant_noise(weights: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.ones_like(weight) for weight in weights]


@pytest.mark.parametrize("name", ["sam", "asam", "gapo", "msam", "zsharp", "random", "rwp"])
def test_a_network_moves_alike_in_conv1d_and_in_linear(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("random", "rwp"):  # draws have a weight's shape
        monkeypatch.setattr(f"alignzoo_geometry.{module}.noise_like", constant_noise)
    options = {"gamma": 0.1, "alpha": 1} if name == "rwp" else {"rho": 0.5, "norm": "neuron"}
    options |= {"over": "global"} if name == "zsharp" else {}
    models = [tiny_model("gpt2"), in_linear_maps(tiny_model("gpt2"))]
    reference, found = shifted(models[0]), []
    for model in models:
        controller = load_method("geometry", name, **options)
        for step in range(2):
            controller.step(context(model, cut(ROWS, 4), objective(), reference=reference, step=step))
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        found.append(gradients)
    conv1d, linear = found
    stored_transposed = {f"{name}.weight" for name, m in models[0].named_modules() if isinstance(m, Conv1D)}
    for name, gradient in conv1d.items():
        torch.testing.assert_close(gradient, linear[name].T if name in stored_transposed else linear[name])


def test_experts_have_outputs_in_each_matrix() -> None:
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    names, weights = zip(*model.named_parameters(), strict=True)
    axes = dict(zip(names, output_axes(model, weights), strict=True))
    experts = next(module for module in model.modules() if hasattr(module, "is_transposed"))
    assert axes["model.layers.0.mlp.experts.gate_up_proj"] == axes["model.layers.0.mlp.experts.down_proj"] == (0, 1)
    experts.is_transposed = True
    assert dict(zip(names, output_axes(model, weights), strict=True))["model.layers.0.mlp.experts.down_proj"] == (0, 2)
    assert axes["model.embed_tokens.weight"] == axes["model.layers.1.self_attn.q_proj.weight"] == (0,)
    assert axes["model.norm.weight"] == ()
