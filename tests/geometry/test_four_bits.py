"""Controllers over a base in NF4, held against the same base dequantised; bitsandbytes runs on CPUs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, LlamaConfig

from alignzoo import load_method
from alignzoo.data.collate import collate
from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.adapters import four_bits
from alignzoo.model.load import as_policy
from alignzoo.model.source import ModelSource
from alignzoo.objective.objective import Objective
from alignzoo.plan.settings import Settings
from alignzoo.report import Reporter
from alignzoo.step.context import StepContext
from alignzoo.step.engine import Engine
from alignzoo.step.setup import SetupContext
from alignzoo.testing.tiny import SMALL, random_rows

bnb = pytest.importorskip("bitsandbytes")
CONTROLLERS = {"plain": {}, "sam": {}, "shapo-token": {"interval": 1, "select": "random", "share": 0.5}}
WORDS = Settings(lora_r=4, quantize="4bit", precision="fp32")


def bases(folder: Path) -> tuple[Any, Any]:
    """The model in NF4, and in fp32 with the same values."""
    sizes = {**SMALL, "hidden_size": 128, "intermediate_size": 256}  # NF4 is stored in blocks of 64
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**sizes)).save_pretrained(folder)
    quantised = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=four_bits(WORDS), device_map={"": "cpu"}
    )
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, module in quantised.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            whole = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = whole.float()
            # On a CPU, bitsandbytes 0.50 repacks weights in eval mode, for a kernel without a gradient of its input.
            module.support_avx512bf16_for_cpu = False
    return quantised, plain


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_step_over_nf4_is_the_one_over_its_values(tmp_path: Path, name: str) -> None:
    batch, gradients = collate(random_rows([2, 2], seed=1), 0, shape="pairs"), []
    for model in bases(tmp_path):
        policy = as_policy(model, ModelSource(str(tmp_path)), WORDS).train()
        for weight_name, weight in policy.named_parameters():
            if "lora_B" in weight_name:
                weight.data.fill_(0.02)
        with torch.no_grad(), policy.disable_adapter():
            reference = padded_logps(policy, batch)
        engine = Engine(policy, padded_logps, Objective(load_method("loss", "dpo")), Accelerator(cpu=True), 0)
        controller = load_method("geometry", name, **CONTROLLERS[name])
        controller.setup(SetupContext(policy, 0, Reporter(), lambda given: None))
        context = StepContext(engine, [batch], [reference], 0)
        controller.step(context)
        assert name == "plain" or context.metrics["geometry/survival"] == pytest.approx(1, abs=1e-3)
        gradients.append({n: w.grad for n, w in policy.named_parameters() if w.requires_grad})
    found, expected = gradients
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for weight_name, gradient in expected.items():
        assert torch.allclose(found[weight_name], gradient, rtol=1e-3, atol=1e-6), weight_name
