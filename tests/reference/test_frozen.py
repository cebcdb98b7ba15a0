"""The reference is the policy as it was, in eval mode, and the policy is left as it was found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.base import REFERENCE_ADAPTER
from alignzoo.model.modes import disable_dropout
from alignzoo.reference.frozen import Reference
from alignzoo.testing.tiny import CONFIGS, batch_of, pair_rows, tiny_model

BATCH = batch_of(pair_rows(3))


def adapted(*, trained: bool = False) -> Any:
    torch.manual_seed(1)
    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).double()
    if trained:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_a_snapshot_does_not_follow_the_policy() -> None:
    model = tiny_model()
    before = padded_logps(model, BATCH)
    reference = Reference(model, padded_logps)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    assert torch.equal(reference(BATCH).logps, before.logps)
    assert not torch.equal(padded_logps(model, BATCH).logps, before.logps)


def test_without_its_dropout_whatever_mode_the_policy_is_in() -> None:
    model = tiny_model("gpt2")
    expected = padded_logps(model, BATCH).logps
    reference = Reference(model.train(), padded_logps)
    assert torch.equal(reference(BATCH).logps, expected)
    assert model.training


@pytest.mark.parametrize("family", CONFIGS)
def test_dropout_is_switched_off_in_modules_and_in_functional_attention(family: str) -> None:
    model = tiny_model(family)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        if hasattr(module, "attention_dropout") and isinstance(module.attention_dropout, float):
            module.attention_dropout = 0.5
    expected = padded_logps(model, BATCH).logps
    disable_dropout(model.train())
    assert torch.equal(padded_logps(model, BATCH).logps, expected)


def test_a_new_adapter_is_off() -> None:
    model = adapted(trained=True)
    base = padded_logps(tiny_model(), BATCH).logps
    torch.testing.assert_close(Reference(model, padded_logps)(BATCH).logps, base)
    assert not torch.allclose(padded_logps(model, BATCH).logps, base)


def test_a_trained_adapter_has_a_frozen_copy(tmp_path: Any) -> None:
    from peft import PeftModel

    adapted(trained=True).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(tiny_model(), tmp_path, is_trainable=True)
    model.load_adapter(tmp_path, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    model.set_adapter("default")
    start = padded_logps(model, BATCH).logps
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter += 0.3
    torch.testing.assert_close(Reference(model, padded_logps)(BATCH).logps, start)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert any("lora_B.default" in name and flag for name, flag in flags.items())
    assert not any(REFERENCE_ADAPTER in name and flag for name, flag in flags.items())


@pytest.mark.parametrize("make", [tiny_model, adapted], ids=["full", "adapter"])
def test_everything_is_restored_after_an_exception(make: Any) -> None:
    model = make().train()
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = padded_logps(model, BATCH).logps

    def failing(*_arguments: Any) -> Any:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Reference(model, failing)(BATCH)
    assert model.training
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert torch.equal(padded_logps(model, BATCH).logps, before)
