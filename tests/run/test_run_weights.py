"""``--weights``: frozen weights in bf16 under an adapter, held against the same run with fp32 ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import Az, MakeModel, OnTwoRanks, RunFolder, Train
from transformers import AutoModelForCausalLM

from alignzoo.data.collate import collate
from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.load import load_policy
from alignzoo.model.source import find_model
from alignzoo.plan.settings import Settings
from alignzoo.testing.tiny import random_rows

FAMILIES = ("llama", "gpt2", "gemma", "qwen3")


def policies(path: Path, **more: Any) -> list[Any]:
    """The same LoRA policy with fp32 and with bf16 frozen weights."""
    source = find_model(str(path))
    return [
        load_policy(source, Settings(model=str(path), precision="bf16", weights=weights, **more))
        for weights in ("fp32", "bf16")
    ]


def in_bf16(path: Path) -> Path:
    """The model, saved in bf16 as published ones are."""
    AutoModelForCausalLM.from_pretrained(path).to(torch.bfloat16).save_pretrained(path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_saved_in_bf16_computes_the_same_numbers(make_model: MakeModel, family: str) -> None:
    wide, narrow = policies(in_bf16(make_model(family)), lora_r=4)
    batch = collate(random_rows([2, 2], seed=1), 0, shape="pairs")
    found = []
    for policy in (wide, narrow):
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.01)
        with torch.autocast("cpu", torch.bfloat16):
            logps = padded_logps(policy, batch).logps
        logps.sum().backward()
        trained = {n: w for n, w in policy.named_parameters() if w.requires_grad}
        assert {w.dtype for w in trained.values()} == {torch.float32}
        found.append((logps.detach(), trained))
    (expected, weights), (logps, others) = found
    assert torch.equal(logps, expected)
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), f"{name} starts from the same draw"
        assert weight.grad is not None
        assert torch.equal(weight.grad, others[name].grad)
    sizes = [sum(w.numel() * w.element_size() for w in p.parameters() if not w.requires_grad) for p in (wide, narrow)]
    assert sizes[1] < 0.6 * sizes[0]


def test_it_computes_outside_autocast_too(make_model: MakeModel) -> None:
    wide, narrow = policies(in_bf16(make_model("llama")), lora_r=4)
    batch = collate(random_rows([2, 2], seed=1), 0, shape="pairs")
    with torch.no_grad():
        gap = (padded_logps(narrow, batch).logps - padded_logps(wide, batch).logps).abs().max()
    assert 0 < gap < 0.5


def test_a_trained_adapter_keeps_its_values(make_model: MakeModel, tmp_path: Path) -> None:
    first = policies(make_model("llama"), lora_r=4)[0]
    for name, weight in first.named_parameters():
        if "lora_" in name:
            weight.data.normal_()
    first.save_pretrained(tmp_path)
    wide, narrow = policies(tmp_path)
    for (name, one), (_, other) in zip(wide.named_parameters(), narrow.named_parameters(), strict=True):
        if "lora_" in name:
            assert torch.equal(one, other)


WORDS = {"lora.r": 4, "precision": "bf16", "lr": 1e-2, "robust": ["drdpo"]}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "sam": {"geometry.interval": 1},
    "shapo-token": {"geometry.interval": 1},
    "nspo": {},
    "tr-dpo": {"geometry.tr-dpo.interval": 1},
}


@pytest.mark.parametrize(
    "geometry", [name if name == "sam" else pytest.param(name, marks=pytest.mark.slow) for name in GEOMETRIES]
)
def test_a_run_with_narrow_weights_is_the_wide_one(train: Train, make_model: MakeModel, geometry: str) -> None:
    base = str(in_bf16(make_model("llama")))
    words = {**WORDS, **GEOMETRIES[geometry], "model": base, "geometry": geometry}
    narrow, wide = train(**words), train(**words, weights="fp32")
    assert narrow.plan["settings"]["weights"] == {"value": "bf16", "from": "model"}
    for name, weight in wide.weights.items():
        assert torch.allclose(weight, narrow.weights[name], rtol=0, atol=1e-6 if geometry != "tr-dpo" else 1e-3), name


def test_what_it_is_not_for_is_refused(az: Az, make_model: MakeModel) -> None:
    said = az(
        "run", "--model", str(make_model("llama")), "--data", "sandbox", "--precision", "bf16", "--weights", "bf16"
    )
    assert said.returncode == 2
    assert "--lora.r 16" in said.stderr
    said = az("run", "--lora.r", "4", "--precision", "fp32", "--weights", "bf16", "--dry-run")
    assert said.returncode == 2
    assert "--precision bf16" in said.stderr


LAUNCHES: dict[str, dict[str, str]] = {"ddp": {}, "fsdp": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}}


@pytest.mark.slow
def test_two_ranks_take_the_same_steps(
    az: Az, command: Callable[..., list[str]], on_two_ranks: OnTwoRanks, make_model: MakeModel, tmp_path: Path
) -> None:
    base = in_bf16(make_model("llama"))
    words = {"lora.r": 4, "precision": "bf16", "model": base, "geometry": "sam", "lr": 1e-3, "probe.share": None}
    one = tmp_path / "one"
    ended = az(*command(one, **words))
    assert ended.returncode == 0, ended.stderr
    expected = RunFolder(one)
    for name, environment in LAUNCHES.items():
        ended = on_two_ranks(*command(tmp_path / name, **words), **environment)
        assert ended.returncode == 0, ended.stderr
        found = RunFolder(tmp_path / name)
        assert found.plan["settings"]["weights"]["value"] == "bf16"
        for weight, tensor in expected.weights.items():
            assert torch.allclose(found.weights[weight], tensor, rtol=0, atol=2e-3), (name, weight)
